"""Where the person stands: free places, and a draw of them after which distances tell nothing about the furniture."""

import numpy as np

from .room import Room

__all__ = ["FROM_FURNITURE", "FROM_WALLS", "balance", "draw", "free_places", "path_is_free"]

FROM_WALLS, FROM_FURNITURE, SHOULDER = 0.3, 0.2, 0.15
PLACES = 3000
ROUNDS, TOLERANCE = 60, 0.01


def free_places(room: Room, generator: np.random.Generator) -> np.ndarray:
    """Uniform places [P, 2] in a room, away from walls and furniture, metres."""
    places = generator.uniform(FROM_WALLS, np.asarray(room.size) - FROM_WALLS, (PLACES, 2))
    return places[room.clearance(places) >= FROM_FURNITURE]


def path_is_free(room: Room, start: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Whether the straight ways from a place [2] to each of the ends [E, 2] meet no furniture, [E] bool."""
    steps = np.linspace(0, 1, 16)[:, None, None]
    way = start + steps * (ends - start)  # [16, E, 2]
    clearance = room.clearance(way.reshape(-1, 2)).reshape(way.shape[:2])
    return np.min(clearance, axis=0) > SHOULDER


def balance(classes: np.ndarray, count: int) -> np.ndarray | None:
    """Weights of places under which every object is in every class equally often.

    The object's class is then independent of which object it is, of its kind and of its colour. Places where the
    objects are in different classes count more to begin with. The weights are found by raking: scaling them to one
    object's uniform classes after the other's.

    Args:
        classes: [P, Q] class of each of Q objects from each place, -1 where it is in none.
        count: how many classes there are.

    Returns:
        [P] float64 with sum 1, or None if no such weights exist.
    """
    known = np.flatnonzero((classes >= 0).all(axis=1))
    code = classes[known] @ count ** np.arange(classes.shape[1])
    _, first, cell, places = np.unique(code, return_index=True, return_inverse=True, return_counts=True)
    cells = classes[known][first]
    different = np.array([len(set(row)) for row in cells.tolist()])
    mass = places * 8.0**different
    for _ in range(ROUNDS):
        for column in cells.T:
            shares = np.bincount(column, mass, count)
            if not shares.all():
                return None
            mass = mass / (count * shares)[column]
    if max(deviation(column, mass, count) for column in cells.T) > TOLERANCE:
        return None
    weights = np.zeros(len(classes))
    weights[known] = (mass / places)[cell]
    return weights / weights.sum()


def deviation(column: np.ndarray, mass: np.ndarray, count: int) -> float:
    """How far the classes' shares are from uniform."""
    return float(np.abs(np.bincount(column, mass, count) / mass.sum() - 1 / count).max())


def draw(weights: np.ndarray, generator: np.random.Generator) -> int:
    """An index, drawn with probabilities in proportion to weights [P]."""
    return int(generator.choice(len(weights), p=weights / weights.sum()))
