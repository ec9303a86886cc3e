"""Detects web pages of a captive portal or proxy in place of an API's answer. Standard library only."""

_BEGINNINGS = (b"<!doctype html", b"<html", b"<head", b"<body")


def is_web_page(status: int, content_type: str, body: bytes) -> bool:
    """Whether the answer is a web page of a captive portal or proxy.

    That is content which looks like HTML and either has the type HTML or the status 200, with which captive portals
    answer everything.

    Args:
        status: of the answer.
        content_type: the type of the answer; "" if it has none.
        body: its beginning, as far as it could be read.
    """
    start = body.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    if "html" in content_type.lower():
        return start.startswith(b"<")
    return status == 200 and start.startswith(_BEGINNINGS)
