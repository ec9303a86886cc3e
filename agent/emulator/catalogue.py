"""The registered objects of an organisation: applications, their versions, storages, pull profiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from agent.emulator.errors import ApiError
from agent.emulator.models import (
    ApplicationBody,
    ApplicationUpdate,
    PullProfileBody,
    PullProfileUpdate,
    StorageBody,
    StorageUpdate,
    VersionBody,
    VersionUpdate,
)
from agent.emulator.reading import body_faults

Body = TypeVar("Body", bound=BaseModel)
Named = TypeVar("Named", "Application", "Version", "Storage", "PullProfile")


def now() -> datetime:
    """The time of day, with its zone."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """A time in the platform's own form, UTC without saying so: `2026-04-22 12:00:46.444265`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def rfc3339(moment: datetime) -> str:
    """A time where the contract declares `date-time` and shows no other form."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass
class _Record:
    """What all of them have: when it was made, and when it was changed."""

    created: datetime = field(default_factory=now, kw_only=True)
    updated: datetime = field(default_factory=now, kw_only=True)

    def times(self) -> dict[str, str]:
        """`create_time` and `last_updated`."""
        return {"create_time": stamp(self.created), "last_updated": stamp(self.updated)}


@dataclass
class Application(_Record):
    """An application and its versions."""

    body: ApplicationBody
    versions: dict[str, Version] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The contract's `ApplicationRecord`."""
        return {
            **self.body.model_dump(exclude={"create_time", "last_updated"}, exclude_none=True),
            **self.times(),
        }


@dataclass
class Version(_Record):
    """A version of an application."""

    body: VersionBody

    def as_json(self) -> dict[str, Any]:
        """The contract's `Version`: no private token, and no hidden variable."""
        mine = {"private_token", "envs", "ports", "create_time", "last_updated", "caching_percent"}
        body: dict[str, Any] = dict.fromkeys(sorted(self.body.nullable))
        body |= self.body.model_dump(exclude=mine, exclude_none=True)
        body["ports"] = [{**port.model_dump(), "name": port.key} for port in self.body.ports]
        body["envs"] = [{"key": env.key, "value": env.value} for env in self.body.envs if not env.hidden]
        # Nothing is far away here: an image that is to be everywhere is.
        return {**body, "caching_percent": 1.0 if self.body.force_cache else 0.0, **self.times()}


@dataclass
class PullProfile(_Record):
    """Files of a storage that a linked version would find in its container."""

    body: PullProfileBody
    links: dict[tuple[str, str], datetime] = field(default_factory=dict)
    """When it was linked, by application and version."""

    def as_json(self) -> dict[str, Any]:
        """The contract's `PullProfile`."""
        return {**self.body.model_dump(exclude={"create_time", "last_updated"}), **self.times()}


@dataclass
class Storage(_Record):
    """An endpoint storage."""

    body: StorageBody
    profiles: dict[str, PullProfile] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The contract's `Storage`: the secret key stays here."""
        hidden = {"secret_access_key", "create_time", "last_updated"}
        return {**self.body.model_dump(exclude=hidden), **self.times()}

    def profile(self, name: str) -> PullProfile:
        """A pull profile by name.

        Raises:
            ApiError: 404, there is none.
        """
        if name not in self.profiles:
            raise ApiError(404, f"cannot find pull profile {name} of storage {self.body.name}; create it first")
        return self.profiles[name]


class Catalogue:
    """Everything that is registered, and what can be done with it."""

    def __init__(self) -> None:
        """Empty."""
        self.applications: dict[str, Application] = {}
        self.storages: dict[str, Storage] = {}
        self._on_change: list[Callable[[], None]] = []

    def on_change(self, call: Callable[[], None]) -> Callable[[], None]:
        """Have something called after every change; returns what ends that."""
        self._on_change.append(call)
        return lambda: self._on_change.remove(call)

    def changed(self) -> None:
        """Tell of a change."""
        for call in list(self._on_change):
            call()

    # Applications ------------------------------------------------------------------------------------------------

    def add_application(self, body: ApplicationBody) -> Application:
        """Create an application.

        Raises:
            ApiError: 409, there is one of this name.
        """
        if body.name in self.applications:
            raise ApiError(409, f"cannot create application {body.name}: there is one of this name; choose another")
        self.applications[body.name] = Application(body)
        self.changed()
        return self.applications[body.name]

    def application(self, name: str) -> Application:
        """An application by name.

        Raises:
            ApiError: 404, there is none.
        """
        if name not in self.applications:
            raise ApiError(404, f"cannot find application {name}; create it first")
        return self.applications[name]

    def update_application(self, name: str, update: ApplicationUpdate) -> Application:
        """Change an application; its place in lists stays.

        Raises:
            ApiError: 404 without it, 409 when another has the new name.
        """
        application = self.application(name)
        self.applications = _changed(self.applications, application, update, "application", 409)
        for profile in self._profiles():
            profile.links = {
                (application.body.name if linked == name else linked, version): link
                for (linked, version), link in profile.links.items()
            }
        self.changed()
        return application

    def delete_application(self, name: str) -> None:
        """Delete an application with its versions; what is deployed of it goes on.

        Raises:
            ApiError: 404, there is none.
        """
        self.application(name)
        del self.applications[name]
        for profile in self._profiles():
            profile.links = {link: record for link, record in profile.links.items() if link[0] != name}
        self.changed()

    def put_application(self, body: ApplicationBody, versions: Iterable[VersionBody]) -> None:
        """Have an application with these versions, in place of those of the same names.

        Args:
            body: may be of a subclass with more members; those are not kept, since answers show all that is.
            versions: of it.
        """
        body = ApplicationBody.model_validate(
            body.model_dump(include=set(ApplicationBody.model_fields), exclude_none=True)
        )
        application = self.applications.setdefault(body.name, Application(body))
        application.body = body
        for version in versions:
            application.versions[version.name] = Version(version)
        self.changed()

    # Versions ----------------------------------------------------------------------------------------------------

    def add_version(self, application: str, body: VersionBody) -> Version:
        """Create a version of an application.

        Raises:
            ApiError: 404 without the application, 409 when it has a version of this name.
        """
        versions = self.application(application).versions
        if body.name in versions:
            raise ApiError(
                409, f"cannot create version {body.name}: {application} has one of this name; choose another"
            )
        versions[body.name] = Version(body)
        self.changed()
        return versions[body.name]

    def version(self, application: str, name: str) -> Version:
        """A version of an application.

        Raises:
            ApiError: 404, without either.
        """
        versions = self.application(application).versions
        if name not in versions:
            raise ApiError(404, f"cannot find version {name} of application {application}; create it first")
        return versions[name]

    def update_version(self, application: str, name: str, update: VersionUpdate) -> Version:
        """Change a version; deployments that exist keep what they began with.

        Raises:
            ApiError: 404 without it, 400 when another has the new name or the values do not fit together.
        """
        version, owner = self.version(application, name), self.application(application)
        owner.versions = _changed(owner.versions, version, update, "version", 400)
        self.changed()
        return version

    def delete_version(self, application: str, name: str) -> None:
        """Delete a version; what is deployed of it goes on.

        Raises:
            ApiError: 404, there is none.
        """
        self.version(application, name)
        del self.application(application).versions[name]
        for profile in self._profiles():
            profile.links.pop((application, name), None)
        self.changed()

    # Storages ----------------------------------------------------------------------------------------------------

    def add_storage(self, body: StorageBody) -> Storage:
        """Register an endpoint storage.

        Raises:
            ApiError: 400, there is one of this name (the platform's document has no 409 here).
        """
        if body.name in self.storages:
            raise ApiError(400, f"cannot register storage {body.name}: there is one of this name; choose another")
        self.put_storage(body)
        return self.storages[body.name]

    def storage(self, name: str) -> Storage:
        """An endpoint storage by name.

        Raises:
            ApiError: 404, there is none.
        """
        if name not in self.storages:
            raise ApiError(404, f"cannot find endpoint storage {name}; register it first")
        return self.storages[name]

    def update_storage(self, name: str, update: StorageUpdate) -> Storage:
        """Change a storage.

        Raises:
            ApiError: 404 without it, 400 when another has the new name.
        """
        storage = self.storage(name)
        self.storages = _changed(self.storages, storage, update, "storage", 400)
        self.changed()
        return storage

    def delete_storage(self, name: str) -> None:
        """Delete a storage with its pull profiles; versions that name it keep no logs any more.

        Raises:
            ApiError: 404, there is none.
        """
        self.storage(name)
        del self.storages[name]
        self.changed()

    def put_storage(self, body: StorageBody) -> None:
        """Have a storage, in place of one of the same name."""
        self.storages[body.name] = Storage(body)
        self.changed()

    # Pull profiles -----------------------------------------------------------------------------------------------

    def add_profile(self, storage: str, body: PullProfileBody) -> PullProfile:
        """Create a pull profile.

        Raises:
            ApiError: 404 without the storage, 400 when it has a profile of this name.
        """
        profiles = self.storage(storage).profiles
        if body.name in profiles:
            raise ApiError(
                400, f"cannot create pull profile {body.name}: {storage} has one of this name; choose another"
            )
        profiles[body.name] = PullProfile(body)
        return profiles[body.name]

    def update_profile(self, storage: str, name: str, update: PullProfileUpdate) -> PullProfile:
        """Change a pull profile.

        Raises:
            ApiError: 404 without it, 400 when another has the new name.
        """
        owner = self.storage(storage)
        profile = owner.profile(name)
        owner.profiles = _changed(owner.profiles, profile, update, "pull profile", 400)
        return profile

    def _profiles(self) -> Iterable[PullProfile]:
        return (profile for storage in self.storages.values() for profile in storage.profiles.values())


def _changed(records: dict[str, Named], record: Named, update: BaseModel, kind: str, clash: int) -> dict[str, Named]:
    """Change one of some records; returns them all by their names now, each in its place.

    Args:
        records: by name.
        record: the one to change.
        update: the members to change.
        kind: what it is, for messages.
        clash: the status that the contract has where another has the new name.

    Raises:
        ApiError: another has the new name, or the values do not fit together.
    """
    body, name = _updated(record.body, update), record.body.name
    if body.name != name and body.name in records:
        raise ApiError(clash, f"cannot rename {kind} {name}: there is one called {body.name}; choose another")
    record.body, record.updated = body, now()
    return {each.body.name: each for each in records.values()}


def _updated(body: Body, update: BaseModel) -> Body:
    """A body with what an update names in it.

    Raises:
        ApiError: 400, the result breaks a rule that holds between members.
    """
    try:
        return type(body).model_validate(
            {**body.model_dump(exclude_none=True), **update.model_dump(exclude_unset=True)}
        )
    except ValidationError as error:
        raise body_faults(error) from None
