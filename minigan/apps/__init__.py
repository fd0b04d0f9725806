"""Applications in the browser, served to this machine only (the extra `web`).

`server.py` guards and serves any of them, `paint.py` is the canvas of label maps.
"""
