// See border_shape.h; the readable forms are geoseg/vector/{simplify,smooth,square}.py.
#include "border_shape.h"

#include <algorithm>
#include <cmath>

namespace geoseg_vector {

constexpr double CLEARANCE = 0.25;  // outlines that nearly touch look like a mistake
constexpr double BAND_ROWS = 32;
constexpr size_t MOST_POINTS = 1024;  // of an outline that is compared with squared ones point by point

Box box_of(const Point *points, std::size_t count) {
    Box box = {points[0].x, points[0].y, points[0].x, points[0].y};
    for (std::size_t k = 1; k < count; ++k) {
        box.left = std::min(box.left, points[k].x);
        box.top = std::min(box.top, points[k].y);
        box.right = std::max(box.right, points[k].x);
        box.bottom = std::max(box.bottom, points[k].y);
    }
    return box;
}

static int64_t band(double y) { return static_cast<int64_t>(std::floor(y / BAND_ROWS)); }

void DrawnRings::add(int32_t anchor, const std::vector<Point> &points) {
    Ring &ring = rings[anchor];
    ring = {anchor, points, box_of(points.data(), points.size())};
    for (int64_t b = band(ring.box.top); b <= band(ring.box.bottom); ++b) bands[b].push_back(anchor);
}

void DrawnRings::drop(int32_t anchor) {
    auto found = rings.find(anchor);
    if (found == rings.end()) return;
    const Box &box = found->second.box;
    for (int64_t b = band(box.top); b <= band(box.bottom); ++b) {
        std::vector<int32_t> &here = bands[b];
        here.erase(std::find(here.begin(), here.end(), anchor));
        if (here.empty()) bands.erase(b);
    }
    rings.erase(found);
}

template <class Visit> bool DrawnRings::any_near(const Box &box, Visit visit) {
    if (rings.empty()) return false;
    for (int64_t first = band(box.top), b = first; b <= band(box.bottom); ++b) {
        auto found = bands.find(b);
        if (found == bands.end()) continue;
        for (int32_t anchor : found->second) {
            const Ring &ring = rings.at(anchor);
            // In several bands it is visited in the first of them.
            bool is_first = b == std::max(first, band(ring.box.top));
            if (is_first && ring.box.meets(box) && visit(ring)) return true;
        }
    }
    return false;
}

static bool before(const Node &a, const Node &b) {
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}

void Shaper::canonical(std::vector<int32_t> &border) const {
    const std::vector<Node> &nodes = graph.nodes;
    if (border.front() != border.back()) {
        if (!before(nodes[border.front()], nodes[border.back()]))
            std::reverse(border.begin(), border.end());
        return;
    }
    if (!nodes[border.front()].is_junction()) {
        border.pop_back();
        auto first = std::min_element(border.begin(), border.end(), [&](int32_t a, int32_t b) {
            return before(nodes[a], nodes[b]);
        });
        std::rotate(border.begin(), first, border.end());
        border.push_back(border.front());
    }
    if (!before(nodes[border[1]], nodes[border[border.size() - 2]]))
        std::reverse(border.begin(), border.end());
}

static double squared_distance(Point p, Point a, Point b, double aspect) {
    double dx = b.x - a.x, dy = (b.y - a.y) * aspect;
    double px = p.x - a.x, py = (p.y - a.y) * aspect;
    double length = dx * dx + dy * dy, along = px * dx + py * dy;
    if (along <= 0.0 || length == 0.0) return px * px + py * py;
    if (along >= length) {
        double qx = px - dx, qy = py - dy;
        return qx * qx + qy * qy;
    }
    double across = px * dy - py * dx;
    return across * across / length;
}

// Whether p lies in the closed area of a ring of points, or on its closing segment.
static bool is_inside(Point p, const Point *ring, int64_t count) {
    Point a = ring[0], b = ring[count - 1];
    double cross = (b.x - a.x) * (p.y - a.y) - (b.y - a.y) * (p.x - a.x);
    if (cross == 0.0 && std::min(a.x, b.x) <= p.x && p.x <= std::max(a.x, b.x) &&
        std::min(a.y, b.y) <= p.y && p.y <= std::max(a.y, b.y))
        return true;
    bool odd = false;
    for (int64_t k = 0; k < count; ++k) {
        a = ring[k ? k - 1 : count - 1];
        b = ring[k];
        if ((a.y > p.y) != (b.y > p.y)) {
            cross = (b.x - a.x) * (p.y - a.y) - (b.y - a.y) * (p.x - a.x);
            odd ^= (cross > 0.0) == (b.y > a.y);
        }
    }
    return odd;
}

void Shaper::number(const std::vector<int32_t> &nodes) {
    ++stamp;
    places.clear();
    for (int32_t node : nodes) places.push_back(place(node));
    for (size_t k = nodes.size(); k-- > 0;) {  // the first index wins where it goes around
        graph.nodes[nodes[k]].stamp = stamp;
        graph.nodes[nodes[k]].index = static_cast<int32_t>(k);
    }
}

void Shaper::keep_all(const std::vector<int32_t> &nodes) {
    for (int32_t node : nodes) graph.nodes[node].kept = graph.nodes[node].done = true;
}

void Shaper::fix(std::vector<int64_t> &fixed) const {
    int64_t last = static_cast<int64_t>(places.size()) - 1, far = 1, third = -1;
    double best = -1.0;
    for (int64_t k = 1; k < last; ++k) {
        double dx = places[k].x - places[0].x, dy = (places[k].y - places[0].y) * options.aspect;
        if (dx * dx + dy * dy > best) {
            best = dx * dx + dy * dy;
            far = k;
        }
    }
    best = -1.0;
    for (int64_t k = 1; k < last; ++k) {
        double distance = squared_distance(places[k], places[0], places[far], options.aspect);
        if (k != far && distance > best) {
            best = distance;
            third = k;
        }
    }
    fixed = {0, std::min(far, third), std::max(far, third), last};
}

double Shaper::farthest(int64_t i, int64_t j, int64_t &found) const {
    double best = -1.0;
    for (int64_t k = i + 1; k < j; ++k) {
        double distance = squared_distance(places[k], places[i], places[j], options.aspect);
        if (distance > best) {
            best = distance;
            found = k;
        }
    }
    return best;
}

void Shaper::simplify(const std::vector<int32_t> &nodes, Sides sides) {
    number(nodes);
    int64_t last = static_cast<int64_t>(nodes.size()) - 1;
    for (int64_t k = 1; k < last; ++k) graph.nodes[nodes[k]].done = true;
    std::vector<int64_t> fixed = {0, last};
    if (nodes.front() == nodes.back()) fix(fixed);
    std::vector<std::pair<int64_t, int64_t>> todo;
    for (size_t k = 0; k < fixed.size(); ++k) {
        graph.nodes[nodes[fixed[k]]].kept = true;
        if (k) todo.emplace_back(fixed[k - 1], fixed[k]);
    }
    double most = options.simplify * options.simplify;
    while (!todo.empty()) {
        auto [i, j] = todo.back();
        todo.pop_back();
        if (j == i + 1) continue;
        int64_t k = i + 1;
        double distance = farthest(i, j, k);
        if (distance <= most && !is_taken(nodes, i, j, sides)) continue;
        graph.nodes[nodes[k]].kept = true;
        todo.emplace_back(i, k);
        todo.emplace_back(k, j);
    }
}

bool Shaper::is_taken(const std::vector<int32_t> &nodes, int64_t i, int64_t j, Sides sides) {
    int64_t last = static_cast<int64_t>(nodes.size()) - 1;
    if (i == 0 && j == last && has_twin(nodes)) return true;
    bool wraps = j == last && nodes.front() == nodes.back();
    return any_near(places[i], places[j], options.simplify, sides, [&](int32_t node) {
        const Node &corner = graph.nodes[node];
        if (corner.stamp == stamp) {
            int64_t k = corner.index;
            if ((i <= k && k <= j) || (wraps && k == 0)) return false;
        }
        return is_inside(place(node), &places[i], j - i + 1);
    }) || holds_drawn(&places[i], j - i + 1, sides);
}

bool Shaper::holds_drawn(const Point *region, int64_t count, Sides sides) {
    return drawn_rings.any_near(box_of(region, static_cast<size_t>(count)), [&](const Ring &ring) {
        return borders(ring.anchor, sides) &&
               std::any_of(ring.points.begin(), ring.points.end(),
                           [&](Point p) { return is_inside(p, region, count); });
    });
}

bool Shaper::has_twin(const std::vector<int32_t> &nodes) const {
    int32_t first = nodes.front(), last = nodes.back();
    double most = options.simplify * options.simplify;
    for (int d = NORTH; d <= WEST; ++d) {
        int32_t node = graph.nodes[first].links[d], came = first;
        while (node >= 0 && node != nodes[1]) {
            const Node &corner = graph.nodes[node];
            if (node == last) {
                if (came != nodes[nodes.size() - 2]) return true;
                break;
            }
            double away = squared_distance(place(node), places.front(), places.back(), options.aspect);
            if (corner.is_junction() || away > most) break;
            int32_t next = GONE;
            for (int k = 0; k < 4 && next == GONE; ++k)
                if (corner.links[k] >= 0 && corner.links[k] != came) next = corner.links[k];
            came = node;
            node = next;
        }
    }
    return false;
}

bool Shaper::borders(int32_t node, Sides sides) {
    for (int32_t label : graph.nodes[node].faces)
        if (label != GONE) {
            int32_t face = graph.find(label);
            if (face == sides.left || face == sides.right) return true;
        }
    return false;
}

template <class Visit>
bool Shaper::any_near(Point one, Point other, double reach, Sides sides, Visit visit) {
    double rows = reach / options.aspect;
    Point a = one.y <= other.y ? one : other, b = one.y <= other.y ? other : one;
    int64_t stop = static_cast<int64_t>(b.y + rows) + 2;
    for (int64_t y = static_cast<int64_t>(a.y - rows); y < stop; ++y) {
        RowOfNodes *here = graph.row_of_nodes(y);
        if (!here || !here->alive) continue;
        double low = std::min(a.x, b.x), high = std::max(a.x, b.x);
        if (b.y > a.y) {
            double first = a.x + (b.x - a.x) * std::min(std::max((y - rows - a.y) / (b.y - a.y), 0.0), 1.0);
            double last = a.x + (b.x - a.x) * std::min(std::max((y + rows - a.y) / (b.y - a.y), 0.0), 1.0);
            low = std::min(first, last);
            high = std::max(first, last);
        }
        double left = low - reach - 1, right = high + reach + 1;
        auto at = std::lower_bound(here->nodes.begin(), here->nodes.end(), left,
                                   [](const std::pair<int32_t, int32_t> &e, double x) { return e.first < x; });
        for (; at != here->nodes.end() && at->first <= right; ++at)
            if (graph.holds(at->second, at->first, y) && !graph.nodes[at->second].elsewhere &&
                borders(at->second, sides) && visit(at->second))
                return true;
    }
    return false;
}

void Shaper::keep_places(const std::vector<int32_t> &nodes) {
    kept.assign(1, 0);
    for (size_t k = 1; k + 1 < nodes.size(); ++k)
        if (graph.nodes[nodes[k]].kept) kept.push_back(static_cast<int64_t>(k));
    kept.push_back(static_cast<int64_t>(nodes.size()) - 1);
}

void Shaper::triple(size_t at, int64_t *three) const {
    three[0] = at ? kept[at - 1] : kept[kept.size() - 2];
    three[1] = kept[at];
    three[2] = kept[at + 1];
}

static Point towards(Point p, Point q, double length, double whole) {
    if (length + length == whole) return {(p.x + q.x) / 2.0, (p.y + q.y) / 2.0};
    double share = length / whole;
    return {p.x + share * (q.x - p.x), p.y + share * (q.y - p.y)};
}

Shaper::Cut Shaper::cut_corner(Point a, Point p, Point b) const {
    double ax = a.x - p.x, ay = (a.y - p.y) * options.aspect;
    double bx = b.x - p.x, by = (b.y - p.y) * options.aspect;
    if (ax * by == ay * bx) return {p, p, false};
    double to_a = std::sqrt(ax * ax + ay * ay), to_b = std::sqrt(bx * bx + by * by);
    double ex = ax / to_a + bx / to_b, ey = ay / to_a + by / to_b;
    double bend = std::sqrt(ex * ex + ey * ey), length = std::min(to_a, to_b) / 2.0;
    if (bend * length > 4.0 * options.smooth) length = 4.0 * options.smooth / bend;
    return {towards(p, a, length, to_a), towards(p, b, length, to_b), true};
}

void Shaper::mark_rounded(const std::vector<int32_t> &nodes, Sides sides) {
    number(nodes);
    keep_places(nodes);
    bool around = is_around(nodes);
    int64_t last = static_cast<int64_t>(nodes.size()) - 1;
    for (size_t at = around ? 0 : 1; at + 1 < kept.size(); ++at) {
        int64_t three[3];
        triple(at, three);
        int64_t from = three[0], to = three[2];
        Point p = places[three[1]];
        Cut ends = cut_corner(places[from], p, places[to]);
        if (!ends.is_corner) continue;
        Point triangle[3] = {ends.from, p, ends.to};
        double reach = std::max(std::max(std::abs(ends.from.x - p.x), std::abs(ends.from.y - p.y)),
                                std::max(std::abs(ends.to.x - p.x), std::abs(ends.to.y - p.y)));
        bool wraps = from > to || to == last;
        bool taken = any_near(
            ends.from, ends.to, reach * std::max(1.0, options.aspect), sides, [&](int32_t node) {
                const Node &corner = graph.nodes[node];
                if (corner.stamp == stamp) {
                    int64_t k = corner.index;
                    bool past = from > to || (wraps && k == 0);
                    if (past ? k >= from || k <= to : from <= k && k <= to) return false;
                }
                return is_inside(place(node), triangle, 3);
            }) || holds_drawn(triangle, 3, sides);
        graph.nodes[nodes[three[1]]].rounded = !taken;
    }
}

static void append(std::vector<Point> &points, Point p) {
    if (points.empty() || !(points.back() == p)) points.push_back(p);
}

void Shaper::draw(const std::vector<int32_t> &nodes, std::vector<Point> &points) {
    static const double CURVE[3] = {0.25, 0.5, 0.75};
    keep_places(nodes);
    bool around = is_around(nodes);
    size_t count = around ? kept.size() - 1 : kept.size();
    points.clear();
    for (size_t at = 0; at < count; ++at) {
        int32_t node = nodes[kept[at]];
        const Node &corner = graph.nodes[node];
        bool inner = around || (at > 0 && at + 1 < kept.size());
        if (!corner.rounded || !inner) {
            points.push_back(corner.shifted ? shifted.at(node) : place(node));
            continue;
        }
        int64_t three[3];
        triple(at, three);
        Point p = place(node);
        Cut ends = cut_corner(place(nodes[three[0]]), p, place(nodes[three[2]]));
        if (!ends.is_corner) {
            append(points, p);
            continue;
        }
        append(points, ends.from);
        for (double t : CURVE) {
            double u = 1.0 - t;
            points.push_back({u * u * ends.from.x + 2.0 * u * t * p.x + t * t * ends.to.x,
                              u * u * ends.from.y + 2.0 * u * t * p.y + t * t * ends.to.y});
        }
        points.push_back(ends.to);
    }
    if (around) {
        if (points.front() == points.back()) points.pop_back();
        points.push_back(points.front());
    }
}

bool Shaper::square(const std::vector<int32_t> &nodes, const std::vector<int32_t> &waypoints,
                    Sides sides) {
    number(nodes);
    for (int32_t node : waypoints) graph.nodes[node].stamp = stamp;
    std::vector<Point> ring(nodes.size());
    int64_t count = options.square(&places[0].x, static_cast<int64_t>(places.size()), &ring[0].x);
    if (count < 0) throw Stopped();
    ring.resize(static_cast<size_t>(count));
    if (!count || !is_free(ring, sides)) return false;
    for (size_t k = 1; k + 1 < nodes.size(); ++k) graph.nodes[nodes[k]].done = true;
    for (size_t k = 0; k + 1 < ring.size(); ++k) {
        graph.nodes[nodes[k]].kept = graph.nodes[nodes[k]].shifted = true;
        shifted[nodes[k]] = ring[k];
    }
    for (int32_t node : waypoints) graph.nodes[node].elsewhere = true;
    drawn_rings.add(nodes[0], ring);
    return true;
}

void Shaper::settle(const std::vector<int32_t> &nodes, const std::vector<int32_t> &everything) {
    bool known = false;
    if (!graph.nodes[nodes[0]].is_junction()) {
        std::vector<Point> points;
        draw(nodes, points);
        known = points.size() <= MOST_POINTS;
        if (known) drawn_rings.add(nodes[0], points);
    }
    for (int32_t node : everything) {
        graph.nodes[node].elsewhere = known;
        graph.nodes[node].settled = !graph.nodes[node].is_junction();
    }
}

static double side(Point a, Point b, Point p) {
    return (b.x - a.x) * (p.y - a.y) - (b.y - a.y) * (p.x - a.x);
}

static double apart(Point a, Point b, Point c, Point d, double aspect) {
    if (side(a, b, c) * side(a, b, d) < 0.0 && side(c, d, a) * side(c, d, b) < 0.0) return 0.0;
    return std::min(
        std::min(squared_distance(a, c, d, aspect), squared_distance(b, c, d, aspect)),
        std::min(squared_distance(c, a, b, aspect), squared_distance(d, a, b, aspect)));
}

bool Shaper::is_clear(Point one, Point other, const std::vector<Point> &ring, double reach) const {
    if (is_inside(one, places.data(), static_cast<int64_t>(places.size())) !=
        is_inside(one, ring.data(), static_cast<int64_t>(ring.size())))
        return false;
    for (size_t k = 0; k + 1 < ring.size(); ++k)
        if (apart(one, other, ring[k], ring[k + 1], options.aspect) <= reach * reach) return false;
    return true;
}

bool Shaper::is_free(const std::vector<Point> &ring, Sides sides) {
    double settled = options.simplify + options.smooth + CLEARANCE, rows = settled / options.aspect;
    Box old = box_of(places.data(), places.size()), box = box_of(ring.data(), ring.size());
    box = {std::min(box.left, old.left) - settled, std::min(box.top, old.top) - rows,
           std::max(box.right, old.right) + settled, std::max(box.bottom, old.bottom) + rows};
    int64_t stop = static_cast<int64_t>(std::ceil(box.bottom)) + 1;
    for (int64_t y = static_cast<int64_t>(std::floor(box.top)) - WAYPOINT_ROWS; y < stop; ++y) {
        RowOfNodes *here = graph.row_of_nodes(y);
        if (!here) continue;
        auto at = std::lower_bound(here->nodes.begin(), here->nodes.end(), box.left,
                                   [](const std::pair<int32_t, int32_t> &e, double x) { return e.first < x; });
        if (at != here->nodes.begin()) --at;  // its edge to the right may reach into the box
        while (at != here->nodes.begin() && !graph.holds(at->second, at->first, y)) --at;
        for (; at != here->nodes.end() && at->first <= box.right; ++at) {
            int32_t node = at->second;
            if (!graph.holds(node, at->first, y)) continue;
            const Node &corner = graph.nodes[node];
            if (corner.stamp == stamp || corner.elsewhere || !borders(node, sides)) continue;
            for (int d : {EAST, SOUTH}) {
                int32_t link = corner.links[d];
                Point ends[2] = {place(node), link >= 0 ? place(link) : place(node)};
                if (!box_of(ends, 2).meets(box)) continue;
                bool has_form = corner.settled || (link >= 0 && graph.nodes[link].settled);
                if (!is_clear(ends[0], ends[1], ring, has_form ? settled : CLEARANCE)) return false;
            }
        }
    }
    return !drawn_rings.any_near(box, [&](const Ring &near) {
        if (!borders(near.anchor, sides)) return false;
        for (size_t k = 0; k + 1 < near.points.size(); ++k)
            if (!is_clear(near.points[k], near.points[k + 1], ring, CLEARANCE)) return true;
        return false;
    });
}

}  // namespace geoseg_vector
