"""What FastAPI has to do beyond what all do."""

from __future__ import annotations

from tests.frameworks.site import HTTP, Site, story

__all__ = ["FASTAPI_STORIES"]


@story("models, and what is said of one that does not fit", over=HTTP)
def models(site: Site) -> None:
    """With the place of the fault."""
    with site.http() as http:
        item = {"name": "é", "price": 1.5}
        assert http.post("/item", json=item).json() == item
        refused = http.post("/item", json={"name": "x", "price": "much"})
        assert refused.status_code == 422
        assert refused.json()["detail"][0]["loc"] == ["body", "price"]


@story("its own documentation", over=HTTP)
def documentation(site: Site) -> None:
    """The page and what it is made from."""
    with site.http() as http:
        assert "/item" in http.get("/openapi.json").json()["paths"]
        assert "swagger" in http.get("/docs").text


@story("a dependency that is open while the response is streamed", over=HTTP)
def dependency(site: Site) -> None:
    """And closed behind it."""
    with site.http() as http:
        assert http.get("/resource").text == "resource"
        assert http.get("/resources").json() == ["opened", "streamed", "closed"]


@story("`CORSMiddleware`", over=HTTP)
def cors(site: Site) -> None:
    """The question before a request, and the request."""
    origin = {"Origin": "https://elsewhere.example"}
    with site.http() as http:
        asked = http.options("/json", headers={**origin, "Access-Control-Request-Method": "GET"})
        answered = http.get("/openapi.json", headers=origin)
        for answer in (asked, answered):
            assert answer.headers["access-control-allow-origin"] == origin["Origin"]


FASTAPI_STORIES = (models, documentation, dependency, cors)
