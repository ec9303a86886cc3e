"""Whether an answer is somebody else's web page: a captive portal's, or a proxy's own. Standard library only."""

_BEGINNINGS = (b"<!doctype html", b"<html", b"<head", b"<body")


def is_web_page(status: int, content_type: str, body: bytes) -> bool:
    """Whether somebody else answered with a page of their own.

    What calls itself HTML and looks so is one, and so is what looks so and comes with 200, as captive portals answer to
    everything.

    Args:
        status: of the answer.
        content_type: what the answer calls itself; "" where it does not say.
        body: its beginning, as far as it could be read.
    """
    start = body.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    if "html" in content_type.lower():
        return start.startswith(b"<")
    return status == 200 and start.startswith(_BEGINNINGS)
