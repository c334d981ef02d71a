"""A browser without a driver: Chromium, told what to do through two pipes (the DevTools protocol).

A message is JSON, with a zero byte behind it. Chromium reads them from file descriptor 3 and writes to 4
(``--remote-debugging-pipe``), so that neither a port nor another package is needed.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-pipe"
).split()
# The two pipes, whatever their numbers are, as 3 and 4; then the browser in place of this process.
BEGIN = (
    "import os, sys; r, w = (os.dup(int(n)) for n in sys.argv[1:3]); os.dup2(r, 3); os.dup2(w, 4); "
    "[os.set_inheritable(n, True) for n in (3, 4)]; os.execvp(sys.argv[3], sys.argv[3:])"
)


class Browser:
    """One page of a browser.

    Parameters
    ----------
    program : str
        Chromium.
    folder : Path
        Empty, for what it keeps.
    size : tuple of int
        Of the window.
    """

    def __init__(self, program: str, folder: Path, size: tuple[int, int] = (1200, 900)) -> None:
        for_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        command = [sys.executable, "-c", BEGIN, str(for_browser), str(from_browser), program]
        self._process = subprocess.Popen(
            [*command, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
            pass_fds=(for_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(for_browser)
        os.close(from_browser)
        self._received, self._count, self._session = b"", 0, None
        self.errors: list[str] = []
        """What the console has complained about."""
        self.requested: list[str] = []
        """Addresses that the page has asked for."""
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.do(f"{domain}.enable")
        self.resize(*size)

    # -- the protocol

    def do(self, method: str, **parameters: Any) -> Any:
        """Do something, and return what comes of it."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next(60)
            if found.get("id") == self._count:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return found["result"]
            self._note(found)

    def _next(self, seconds: float) -> Any:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._read], [], [], seconds)
            if not ready:
                raise TimeoutError("the browser does not answer")
            more = os.read(self._read, 1 << 20)
            if not more:
                raise ConnectionError("the browser is gone")
            self._received += more
        found, _, self._received = self._received.partition(b"\0")
        return json.loads(found)

    def _note(self, event: Any) -> None:
        about = event.get("params", {})
        if event["method"] == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.errors.append(str(details.get("exception", details).get("description", details)))
        elif event["method"] == "Runtime.consoleAPICalled" and about["type"] in (
            "error",
            "warning",
            "assert",
        ):
            self.errors.append(str([one.get("value") for one in about["args"]]))
        elif event["method"] == "Log.entryAdded" and about["entry"]["level"] in (
            "error",
            "warning",
        ):
            self.errors.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
        elif event["method"] == "Network.requestWillBeSent":
            self.requested.append(about["request"]["url"])

    # -- what a person does

    def open(self, address: str) -> None:
        """Go to an address."""
        self.do("Page.navigate", url=address)

    def value(self, script: str) -> Any:
        """What an expression of JavaScript is."""
        found = self.do(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 20.0) -> None:
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while not self.value(f"Boolean({script})"):
            if time.monotonic() > end:
                raise TimeoutError(f"{script} did not become true; the page says: {self.text()}")
            time.sleep(0.05)

    def text(self, selector: str = "body") -> str:
        """What stands in an element."""
        return self.value(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Click on an element, at a place in it."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{element}.scrollIntoView({{block: 'center'}})")
        box = self.value(
            f"(({{left, top, width, height}}) => [left, top, width, height])({element}.getBoundingClientRect())"
        )
        at = {"x": box[0] + x * box[2], "y": box[1] + y * box[3], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.do("Input.dispatchMouseEvent", type=kind, **at)

    def type(self, selector: str, text: str) -> None:
        """Type into a field, in place of what stands in it."""
        self.value(f"document.querySelector({json.dumps(selector)}).select()")
        self.value(f"document.querySelector({json.dumps(selector)}).focus()")
        self.press("Backspace", 8)
        self.do("Input.insertText", text=text)

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key."""
        about = {"key": key, "windowsVirtualKeyCode": code}
        self.do(
            "Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {})
        )
        self.do("Input.dispatchKeyEvent", type="keyUp", **about)

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a select element."""
        self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.value = {json.dumps(value)}; "
            "e.dispatchEvent(new Event('change', {bubbles: true})); return e.value; })()"
        )

    def upload(self, selector: str, path: Path) -> None:
        """Choose a file."""
        root = self.do("DOM.getDocument")["root"]["nodeId"]
        node = self.do("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.do("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def resize(self, width: int, height: int) -> None:
        """Make the window another size."""
        self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def screenshot(self, path: Path | None = None) -> bytes:
        """The whole page as PNG."""
        shot = self.do("Page.captureScreenshot", captureBeyondViewport=True)
        found = base64.b64decode(shot["data"])
        if path is not None:
            path.write_bytes(found)
        return found

    def close(self) -> None:
        """End it."""
        try:
            self._session = None
            self.do("Browser.close")
        except (OSError, TimeoutError):
            self._process.kill()
        finally:
            self._process.wait(20)
            os.close(self._write)
            os.close(self._read)
