"""A bar in a notebook, or a line on stderr."""

import html
import sys
import time


def _size(count):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _notebook():
    """IPython's `display`, if a notebook's kernel runs this."""
    try:
        from IPython import get_ipython
        from IPython.display import HTML, display
    except ImportError:
        return None
    shell = get_ipython()
    if shell is None or not getattr(shell, "kernel", None):
        return None
    return lambda text, handle: handle.update(HTML(text)) if handle else display(HTML(text), display_id=True)


class Progress:
    """Shows how far a job is."""

    def __init__(self, name, out=None):
        self.name, self.begun = name, time.monotonic()
        self._display, self._handle, self._out = _notebook(), None, out or sys.stderr

    def text(self, status):
        """One line: splits, bytes, speed since this began to look, ratio."""
        seconds = max(time.monotonic() - self.begun, 1e-3)
        ratio = status.raw_bytes / status.compressed_bytes if status.compressed_bytes else 0.0
        speed = status.raw_bytes / seconds / 1e6
        return (
            f"{self.name}: {status.splits_done}/{status.splits} splits, {_size(status.raw_bytes)}, "
            f"{speed:.0f} MB/s, ratio {ratio:.1f}, {status.documents} documents"
        )

    def show(self, status):
        """Shows it anew, in the same place."""
        line = self.text(status)
        if self._display:
            bar = f'<progress value="{status.splits_done}" max="{max(status.splits, 1)}"></progress>'
            self._handle = self._display(f"{bar} {html.escape(line)}", self._handle) or self._handle
        elif self._out.isatty():
            self._out.write(f"\r\x1b[2K{line}" + ("\n" if status.is_committed else ""))
        else:
            self._out.write(line + "\n")
        self._out.flush()
