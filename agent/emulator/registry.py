"""The organisation's container registry: the images of podman or docker on this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from agent.emulator.catalogue import now, stamp
from agent.emulator.engine import Engine
from agent.emulator.errors import ApiError

PROJECT = "emulator-made-up"
CREDENTIALS = {
    "registry_url": "registry.emulator.invalid",
    "project": PROJECT,
    "username": f"robot${PROJECT}",
    "token": "made-up-by-the-emulator",
}
"""What engine plugins are given for `docker login`. No such registry exists: `.invalid` resolves nowhere (RFC 2606)."""
WITHOUT_ENGINE = "no container engine is here: install podman or docker, and images that they have are listed"
FORMAT = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.Size}}\t{{.CreatedAt}}"
UNITS = {"B": 1e-6, "kB": 1e-3, "KB": 1e-3, "MB": 1.0, "GB": 1e3, "TB": 1e6}


@dataclass(frozen=True)
class Image:
    """A tagged image on this machine."""

    repository: str
    tag: str
    id: str
    size_mb: float
    created: str

    @property
    def reference(self) -> str:
        """As an engine takes it."""
        return f"{self.repository}:{self.tag}"

    @property
    def name(self) -> str:
        """Without registry and project, as the platform lists it."""
        first, slash, rest = self.repository.partition("/")
        is_host = slash and ("." in first or ":" in first or first == "localhost")
        name = rest if is_host else self.repository
        return name.removeprefix(f"{PROJECT}/")


class Registry:
    """Images and their tags.

    Args:
        engine: whose images; None when there is none.
    """

    def __init__(self, engine: Engine | None) -> None:
        """See the class."""
        self._engine = engine
        self.signed_in = False
        """Whether a plugin has signed in, which makes the project."""

    @property
    def messages(self) -> list[str]:
        """Why there may be nothing."""
        return [] if self._engine else [WITHOUT_ENGINE]

    async def images(self) -> list[Image]:
        """Every tagged image; none without an engine.

        Raises:
            ApiError: 500, the engine does not list them.
        """
        if self._engine is None:
            return []
        code, said = await self._engine.call("images", "--format", FORMAT)
        if code:
            raise ApiError(500, f"cannot list images: {said.strip() or 'the engine does not say why'}")
        rows = (line.split("\t") for line in said.splitlines())
        found = [Image(r[0], r[1], r[2], megabytes(r[3]), created(r[4])) for r in rows if len(r) == 5]
        return [image for image in found if image.tag != "<none>" and image.repository != "<none>"]

    async def tags(self, name: str) -> list[Image]:
        """The tags of an image, by its name with or without registry and project; none without an engine.

        Raises:
            ApiError: 404, there is no such image.
        """
        images = await self.images()
        wanted = name.removeprefix(f"{PROJECT}/")
        found = [image for image in images if wanted in {image.name, image.repository}]
        if not found and self._engine is not None:
            raise ApiError(404, f"cannot find image {name}; build it, or see the list of images")
        return found

    async def tags_json(self, name: str) -> list[dict[str, Any]]:
        """The contract's `ImageTag` of each tag."""
        found = await self.tags(name)
        return [
            {"tag": image.tag, "last_push_at": image.created, "artifact": _artifact(image, found, deleted=False)}
            for image in found
        ]

    async def delete(self, name: str, tag: str) -> dict[str, Any]:
        """Remove a tag, and the image when that was its last one.

        Raises:
            ApiError: 404, there is no such tag; 500, the engine does not remove it.
        """
        found = await self.tags(name)
        image = next((each for each in found if each.tag == tag), None)
        if image is None or self._engine is None:
            why = "" if self._engine else f": {WITHOUT_ENGINE}"
            raise ApiError(404, f"cannot find tag {tag} of image {name}{why or '; see its tags'}")
        code, said = await self._engine.call("rmi", image.reference)
        if code:
            raise ApiError(500, f"cannot remove {image.reference}: {said.strip().splitlines()[-1] if said else code}")
        left = [each for each in found if each is not image]
        gone = all(each.id != image.id for each in left)
        return {"artifact": _artifact(image, left, deleted=gone), "deleted_tag": tag}


def _artifact(image: Image, among: list[Image], *, deleted: bool) -> dict[str, Any]:
    return {
        "artifact_deleted": deleted,
        "remaining_tags": [each.tag for each in among if each.id == image.id],
        "image_hash": image.id if ":" in image.id else f"sha256:{image.id}",
        "size_mb": image.size_mb,
    }


def megabytes(text: str) -> float:
    """A size as engines print it (`12.3 MB`, `1.2GB`), in MB; 0 for what cannot be read."""
    match = re.fullmatch(r"\s*([\d.]+)\s*([kKMGT]?B)\s*", text)
    return round(float(match[1]) * UNITS[match[2]], 3) if match and match[1].count(".") <= 1 else 0.0


def created(text: str) -> str:
    """A time as engines print it (`2026-04-22 12:00:46.444265123 +0000 UTC`), in the platform's form."""
    match = re.match(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?", text)
    return f"{match[1]} {match[2]}.{(match[3] or '0'):0<6}" if match else stamp(now())
