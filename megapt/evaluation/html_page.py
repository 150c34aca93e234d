"""The frame of the HTML pages that megapt writes."""

from __future__ import annotations

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def html_page(title: str, css: str, main: str) -> str:
    """Return a self-contained page: it has no script and fetches nothing.

    Args:
        title: escaped title.
        css: the whole style sheet.
        main: HTML of the content, ending with a line break or a tag.
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
<main>
{main}</main>
</body>
</html>
"""
