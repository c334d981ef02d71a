"""The service's addresses.

A request goes through few hands. The middleware has its body, within limits; a thread makes an answer of it
(`Service`); the loop that listens to connections does nothing but pass them on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from marginax import __version__
from marginax.serve.front import Front
from marginax.serve.limits import Limited, Limits
from marginax.serve.page import PAGE, files
from marginax.serve.problems import Problem, as_json, fault
from marginax.serve.schemas import Faults, Health, Predicted, Probabilities, Sampled, in_words
from marginax.serve.service import Service
from marginax.serve.workers import Workers

JSON = "application/json"
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Faults, "description": HTTPStatus(status).phrase}
    for status in (400, 408, 413, 415, 422, 503)
}


def make_app(
    estimator: Any,
    *,
    name: str = "model",
    limits: Limits | None = None,
    sizes: Sequence[int] | None = None,
    hosts: Sequence[str] | None = None,
) -> FastAPI:
    """A fitted mixture as a web application. Compiles what it will need, which takes some seconds.

    Parameters
    ----------
    estimator : GaussianMixture, MixtureModel or HiddenMarkov
        Fitted.
    name : str
        Of the model, for people.
    limits : Limits, optional
        What a request may ask for.
    sizes : sequence of int, optional
        Numbers of rows to compile for; longer tables are cut up, and a series may not be longer.
    hosts : sequence of str, optional
        Names under which it may be asked (see `marginax.serve.front`); any when nothing is said.

    Returns
    -------
    FastAPI
    """
    limits = limits or Limits()
    service = Service(estimator, name, limits, sizes)
    workers = Workers(limits.at_once, limits.waiting_seconds)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        workers.close()

    app = FastAPI(
        title=f"Marginax: {name}",
        version=__version__,
        description="Which component of a mixture rows belong to, and how sure that is.",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        lifespan=life,
    )
    app.state.service, app.state.workers = service, workers

    async def answer(request: Request, function: Callable[[bytes], bytes]) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != JSON:
            raise Problem(
                415, fault("content-type", f"the body must be JSON, with the content-type {JSON}.")
            )
        body = await request.body()
        return Response(await workers.run(function, body), media_type=JSON)

    def post(path: str, body: Any, model: Any) -> Any:
        content = {"content": {JSON: {"schema": body.model_json_schema()}}, "required": True}
        about = {"requestBody": content}
        return app.post(path, response_model=model, responses=REFUSALS, openapi_extra=about)

    @post("/predict", service.rows_body, Predicted)
    async def predict(request: Request) -> Response:
        """The most probable component of each row, and how probable it is."""
        return await answer(request, service.predict)

    @post("/predict_proba", service.rows_body, Probabilities)
    async def predict_proba(request: Request) -> Response:
        """The probability of each component for each row, its spread over the posterior, and the row's log density."""
        return await answer(request, service.predict_proba)

    @post("/sample", service.sample_body, Sampled)
    async def sample(request: Request) -> Response:
        """New rows from the fitted model."""
        return await answer(request, service.sample)

    @app.get("/healthz", response_model=Health)
    async def health() -> Any:
        """That the service is there."""
        return service.health()

    @app.get("/model", responses={422: REFUSALS[422]})
    async def model(
        x: Annotated[int | None, Query(ge=0, description="A column, by number.")] = None,
        y: Annotated[int | None, Query(ge=0, description="Another one.")] = None,
    ) -> Response:
        """What is served: columns, weights, limits, and what is needed to draw the mixture along one column or two."""
        return Response(service.model(x, y), media_type=JSON)

    for path, (content, kind) in files().items():
        app.add_api_route(path, _file(content, kind), include_in_schema=False)

    _explain_errors(app)
    app.add_middleware(Limited, limits=limits)
    app.add_middleware(Front, counter=service, hosts=hosts)
    return app


def _file(content: bytes, kind: str) -> Callable[[], Any]:
    async def file() -> Response:
        return Response(content, media_type=kind)

    return file


def _explain_errors(app: FastAPI) -> None:
    """Whatever goes wrong is told as `Faults`."""

    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> Response:
        return Response(as_json(error.faults), error.status, error.headers, media_type=JSON)

    @app.exception_handler(RequestValidationError)
    async def parameters(_: Request, error: RequestValidationError) -> Response:
        faults = [in_words({**one, "loc": one["loc"][1:]}) for one in error.errors()]
        return Response(as_json(faults), 422, media_type=JSON)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        field, message = "request", f"{error.detail}."
        if error.status_code == 404:
            field, message = (
                "path",
                f"there is nothing at {request.url.path}; see {PAGE} and /openapi.json.",
            )
        elif error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            field, message = "method", f"{request.url.path} is asked with {allowed}."
        body = as_json([fault(field, message)])
        return Response(body, error.status_code, error.headers, media_type=JSON)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:
        message = "something went wrong inside of the service, and was written to its log."
        return Response(as_json([fault("request", message)]), 500, media_type=JSON)
