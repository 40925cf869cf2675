"""What Django with REST framework and WhiteNoise has to do beyond what all do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.frameworks.notes import FILE, PATIENCE
from tests.frameworks.site import HTTP, Site, story

if TYPE_CHECKING:
    import httpx

__all__ = ["DJANGO_STORIES"]


def login(http: httpx.Client) -> httpx.Response:
    """Log in as a browser does; return the page that it comes to."""
    http.get("/admin/login/")
    token = http.cookies["csrftoken"]
    form = {"username": "ada", "password": "countess", "csrfmiddlewaretoken": token}
    return http.post("/admin/login/?next=/admin/", data=form)


@story("Django's admin: forms, CSRF, session, asynchronous views that know the user", over=HTTP)
def admin(site: Site) -> None:
    """Who is not logged in is sent to do so, and back."""
    with site.http(follow_redirects=True) as http:
        page = http.get("/admin/")
        assert page.url.path == "/admin/login/"
        assert http.post("/admin/login/", data={"username": "ada"}).status_code == 403
        page = login(http)
        assert (page.status_code, page.url.path) == (200, "/admin/")
        assert http.get("/count").json()["user"] == "ada"
        assert http.get("/static/admin/css/base.css").status_code == 200


@story("Channels' `AuthMiddlewareStack`: a WebSocket knows who has logged in")
def who(site: Site) -> None:
    """By the cookie of the session."""
    with site.http() as http:
        login(http)
        session = {"Cookie": f"sessionid={http.cookies['sessionid']}"}
    for headers, name in ((session, "ada"), ({}, "")):
        with site.websocket("/ws/who", origin=site.url, additional_headers=headers) as socket:
            assert socket.recv(PATIENCE) == f"{name} of 1"


@story("Django REST framework: create, list by pages, change, delete", over=HTTP)
def rest(site: Site) -> None:
    """With an authenticated client."""
    with site.http(auth=("ada", "countess")) as http:
        made = [http.post("/api/books/", json={"title": f"n. {n}"}).json() for n in range(3)]
        listed = http.get("/api/books/").json()
        assert (listed["count"], len(listed["results"])) == (3, 2)
        assert http.get(listed["next"]).json()["results"] == [made[2]]
        for book in made:
            place = f"/api/books/{book['id']}/"
            changed = http.patch(place, json={"title": "new"})
            assert changed.json() == {**book, "title": "new"}
            assert http.delete(place).status_code == 204
            assert http.get(place).status_code == 404
        assert http.get("/count").json()["books"] == 0


@story("Django REST framework: refusals, content negotiation", over=HTTP)
def refusals(site: Site) -> None:
    """Its own pages for a browser."""
    with site.http() as http:
        assert http.post("/api/books/", json={"title": "x"}).status_code == 403
        page = http.get("/api/books/", headers={"Accept": "text/html"})
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        refused = http.post("/api/books/", json={"title": "x" * 21}, auth=("ada", "countess"))
        assert refused.status_code == 400
        assert "title" in refused.json()
        assert http.put("/api/books/").status_code in {403, 405}


@story("WhiteNoise: a range of a static file, its head", over=HTTP)
def whitenoise(site: Site) -> None:
    """With its length."""
    content = FILE.read_bytes()
    with site.http() as http:
        part = http.get("/static/site.css", headers={"Range": "bytes=3-6"})
        assert (part.status_code, part.content) == (206, content[3:7])
        head = http.head("/static/site.css")
        assert (head.content, head.headers["content-length"]) == (b"", str(len(content)))
        assert "max-age" in head.headers["cache-control"]


DJANGO_STORIES = (admin, who, rest, refusals, whitenoise)
