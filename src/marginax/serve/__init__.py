"""A fitted mixture as an HTTP service, with a page to try it on; needs FastAPI and uvicorn."""

from marginax.serve.app import make_app as make_app
from marginax.serve.limits import Limits as Limits
from marginax.serve.server import serve as serve
