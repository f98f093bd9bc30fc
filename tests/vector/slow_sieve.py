"""The sieve's rules on a whole map, a pixel at a time: nothing is kept from one change to the next.

Shares no code with the package. Flood fill finds the regions anew after every change.
"""

import numpy as np

BESIDE = [(-1, 0), (0, -1), (0, 1), (1, 0)]
CORNERS = [(-1, -1), (-1, 1), (1, -1), (1, 1)]


def slow_sieve(values, weights, rules):
    """Return the map after the last change.

    Args:
        values: class ids (H, W), -1 for nodata.
        weights: area of a pixel of each row, (H,) int64.
        rules: min_area, fill_holes, corners_join.
    """
    values = values.copy()
    while True:
        regions, areas = label(values, weights, rules.corners_join)
        wanted = []
        for region in range(len(areas)):
            class_id = new_class(values, regions, areas, region, rules)
            if class_id is not None:
                wanted.append((areas[region], region, class_id))
        if not wanted:
            return values
        _, region, class_id = min(wanted)
        values[regions == region] = class_id


def label(values, weights, corners_join):
    """Return region numbers in reading order (H, W), -1 for nodata, and the regions' areas."""
    height, width = values.shape
    regions, areas = np.full(values.shape, -1), []
    for start in zip(*np.nonzero(values >= 0), strict=True):
        if regions[start] >= 0:
            continue
        regions[start], todo, area = len(areas), [start], 0
        while todo:
            y, x = todo.pop()
            area += int(weights[y])
            for dy, dx in BESIDE + (CORNERS if corners_join else []):
                v, u = y + dy, x + dx
                inside = 0 <= v < height and 0 <= u < width
                if inside and regions[v, u] < 0 and values[v, u] == values[start]:
                    regions[v, u] = len(areas)
                    todo.append((v, u))
        areas.append(area)
    return regions, areas


def new_class(values, regions, areas, region, rules):
    """Return what a region becomes; None: it stays."""
    height, width = values.shape
    edges, around, ground = [], set(), False
    for y, x in zip(*np.nonzero(regions == region), strict=True):
        for dy, dx in BESIDE + CORNERS:
            v, u = y + dy, x + dx
            corner = dy != 0 and dx != 0
            inside = 0 <= v < height and 0 <= u < width
            if (corner and rules.corners_join) or (inside and regions[v, u] == region):
                continue
            if not inside or values[v, u] < 0:
                # The map's border row touches the outside by an edge in any case.
                ground = True
                continue
            around.add(int(values[v, u]))
            if not corner:
                first = min((y, x), (v, u))
                edges.append(((first, dy != 0), int(values[v, u]), areas[regions[v, u]]))
    hole = areas[region] < rules.fill_holes and len(around) == 1 and not ground
    if not edges or not (hole or areas[region] < rules.min_area):
        return None

    def claim(class_id):
        own = [edge for edge in edges if edge[1] == class_id]
        greatest = min(max(edge[2] for edge in own), rules.min_area)
        (y, x), below = min(edge[0] for edge in own)
        return len(own), greatest, -y, -x, -below

    return max({edge[1] for edge in edges}, key=claim)
