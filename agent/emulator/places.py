"""Locations of deployments: a small table of cities, and the choice of the nearest one to the players."""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.emulator.models import LocationFilter

EARTH_RADIUS_KM = 6371.0
FILTERED = frozenset({"city", "country", "continent", "administrative_division"})
"""What places can be filtered by."""


@dataclass(frozen=True)
class Place:
    """A city with a data centre, as the contract's `Location` has it."""

    city: str
    country: str
    continent: str
    administrative_division: str
    timezone: str
    latitude: float
    longitude: float

    def as_json(self) -> dict[str, Any]:
        """The contract's `Location`."""
        return {
            "city": self.city,
            "country": self.country,
            "continent": self.continent,
            "administrative_division": self.administrative_division,
            "timezone": self.timezone,
            "latitude": self.latitude,
            "longitude": self.longitude,
        }


PLACES: tuple[Place, ...] = (
    Place("Chicago", "United States of America", "North America", "Illinois", "Central Time", 41.8781, -87.6298),
    Place("Montreal", "Canada", "North America", "Quebec", "Eastern Time", 45.5019, -73.5674),
    Place("New York", "United States of America", "North America", "New York", "Eastern Time", 40.7128, -74.0060),
    Place("Miami", "United States of America", "North America", "Florida", "Eastern Time", 25.7617, -80.1918),
    Place("Dallas", "United States of America", "North America", "Texas", "Central Time", 32.7767, -96.7970),
    Place("Seattle", "United States of America", "North America", "Washington", "Pacific Time", 47.6062, -122.3321),
    Place("Los Angeles", "United States of America", "North America", "California", "Pacific Time", 34.0522, -118.2437),
    Place("Querétaro", "Mexico", "North America", "Querétaro", "Central Time", 20.5888, -100.3899),
    Place("São Paulo", "Brazil", "South America", "São Paulo", "Brasilia Time", -23.5505, -46.6333),
    Place("Santiago", "Chile", "South America", "Región Metropolitana", "Chile Time", -33.4489, -70.6693),
    Place("London", "United Kingdom", "Europe", "England", "Greenwich Mean Time", 51.5074, -0.1278),
    Place("Paris", "France", "Europe", "Île-de-France", "Central European Time", 48.8566, 2.3522),
    Place("Madrid", "Spain", "Europe", "Comunidad de Madrid", "Central European Time", 40.4168, -3.7038),
    Place("Frankfurt am Main", "Germany", "Europe", "Hesse", "Central European Time", 50.1109, 8.6821),
    Place("Stockholm", "Sweden", "Europe", "Stockholm", "Central European Time", 59.3293, 18.0686),
    Place("Warsaw", "Poland", "Europe", "Mazovia", "Central European Time", 52.2297, 21.0122),
    Place("Istanbul", "Turkey", "Europe", "Istanbul", "Turkey Time", 41.0082, 28.9784),
    Place("Dubai", "United Arab Emirates", "Asia", "Dubai", "Gulf Standard Time", 25.2048, 55.2708),
    Place("Mumbai", "India", "Asia", "Maharashtra", "India Standard Time", 19.0760, 72.8777),
    Place("Singapore", "Singapore", "Asia", "Singapore", "Singapore Time", 1.3521, 103.8198),
    Place("Hong Kong", "China", "Asia", "Hong Kong", "Hong Kong Time", 22.3193, 114.1694),
    Place("Seoul", "South Korea", "Asia", "Seoul", "Korea Standard Time", 37.5665, 126.9780),
    Place("Tokyo", "Japan", "Asia", "Tokyo", "Japan Standard Time", 35.6762, 139.6503),
    Place("Sydney", "Australia", "Oceania", "New South Wales", "Australian Eastern Time", -33.8688, 151.2093),
    Place("Auckland", "New Zealand", "Oceania", "Auckland", "New Zealand Time", -36.8509, 174.7645),
    Place("Johannesburg", "South Africa", "Africa", "Gauteng", "South Africa Standard Time", -26.2041, 28.0473),
    Place("Lagos", "Nigeria", "Africa", "Lagos", "West Africa Time", 6.5244, 3.3792),
)


def selected_places(places: Sequence[Place], filters: Sequence[LocationFilter]) -> list[Place]:
    """The places that meet every filter; a field that places do not have (`location_tags`) filters nothing.

    A place has one value of each field, so `all` holds where that is the only one asked for.
    """

    def holds(each: LocationFilter, place: Place) -> bool:
        if each.field not in FILTERED:
            return True
        has, wanted = getattr(place, each.field).lower(), {value.lower() for value in each.values}
        if each.filter_type == "not":
            return has not in wanted
        return wanted == {has} if each.filter_type == "all" else has in wanted

    return [place for place in places if all(holds(each, place) for each in filters)]


def distance_km(latitude: float, longitude: float, place: Place) -> float:
    """Great-circle distance from a point, in kilometres (haversine)."""
    here, there = math.radians(latitude), math.radians(place.latitude)
    half_turn = math.radians(place.longitude - longitude) / 2
    square = math.sin((there - here) / 2) ** 2 + math.cos(here) * math.cos(there) * math.sin(half_turn) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(square)))


def place_of_address(address: str) -> tuple[float, float]:
    """A point for an IP address: always the same one, as the emulator has no geography of the internet.

    Addresses that are not on the internet (loopback, private) are at the first city of the table.
    """
    parsed = ipaddress.ip_address(address)
    number = 0 if not parsed.is_global else int.from_bytes(hashlib.sha256(parsed.packed).digest()[:4], "big")
    place = PLACES[number % len(PLACES)]
    return place.latitude, place.longitude


def nearest(points: Sequence[tuple[float, float]], places: Sequence[Place] = PLACES) -> Place:
    """The place with the smallest sum of distances to all points (latitude, longitude)."""
    return min(places, key=lambda place: sum(distance_km(latitude, longitude, place) for latitude, longitude in points))
