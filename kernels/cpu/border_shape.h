// What becomes of a border between junctions: simpler, rounded, square. The readable forms, with the
// reasons, are geoseg/vector/{simplify,smooth,square}.py; names are the same there.
#ifndef GEOSEG_BORDER_SHAPE_H
#define GEOSEG_BORDER_SHAPE_H

#include <stdexcept>
#include <unordered_map>

#include "border_graph.h"

namespace geoseg_vector {

struct Point {
    double x, y;
    bool operator==(const Point &other) const { return x == other.x && y == other.y; }
};

struct Sides {
    int32_t left, right;
};

struct Box {
    double left, top, right, bottom;
    bool meets(const Box &other) const {
        return left <= other.right && other.left <= right && top <= other.bottom && other.top <= bottom;
    }
};

Box box_of(const Point *points, std::size_t count);

// An outline that has its form; its anchor, a node of its border, tells its faces, and how long it
// matters.
struct Ring {
    int32_t anchor;
    std::vector<Point> points;
    Box box;
};

// The short and the squared outlines whose faces are not all written; the readable form is
// geoseg/vector/rings.py.
class DrawnRings {
  public:
    void add(int32_t anchor, const std::vector<Point> &points);
    void drop(int32_t anchor);
    // Calls visit with each ring whose box meets one until it returns true.
    template <class Visit> bool any_near(const Box &box, Visit visit);

  private:
    std::unordered_map<int32_t, Ring> rings;
    std::unordered_map<int64_t, std::vector<int32_t>> bands;
};

struct Stopped : std::runtime_error {
    Stopped() : std::runtime_error("stopped") {}
};

class Shaper {
  public:
    Shaper(BorderGraph &graph, const geoseg_polygon_options &options)
        : graph(graph), options(options) {}
    // Puts a border's nodes into the order that does not depend on the side it is seen from.
    void canonical(std::vector<int32_t> &border) const;
    void simplify(const std::vector<int32_t> &nodes, Sides sides);
    void keep_all(const std::vector<int32_t> &nodes);
    void mark_rounded(const std::vector<int32_t> &nodes, Sides sides);
    bool square(const std::vector<int32_t> &nodes, const std::vector<int32_t> &waypoints, Sides sides);
    // Appends the points of a border, first and last included, in its canonical order.
    void draw(const std::vector<int32_t> &nodes, std::vector<Point> &points);
    // Says where a border is now, exactly where that is little to remember.
    void settle(const std::vector<int32_t> &nodes, const std::vector<int32_t> &everything);
    void forget(int32_t node) {
        shifted.erase(node);
        drawn_rings.drop(node);
    }

  private:
    struct Cut {
        Point from, to;
        bool is_corner;
    };
    Point place(int32_t node) const { return {double(graph.nodes[node].x), double(graph.nodes[node].y)}; }
    bool is_around(const std::vector<int32_t> &nodes) const {
        return nodes.front() == nodes.back() && !graph.nodes[nodes.front()].is_junction();
    }
    void number(const std::vector<int32_t> &nodes);
    void fix(std::vector<int64_t> &fixed) const;
    double farthest(int64_t i, int64_t j, int64_t &found) const;
    bool is_taken(const std::vector<int32_t> &nodes, int64_t i, int64_t j, Sides sides);
    bool has_twin(const std::vector<int32_t> &nodes) const;
    bool borders(int32_t node, Sides sides);
    template <class Visit> bool any_near(Point one, Point other, double reach, Sides sides, Visit visit);
    void keep_places(const std::vector<int32_t> &nodes);
    Cut cut_corner(Point a, Point p, Point b) const;
    void triple(size_t at, int64_t *three) const;
    bool holds_drawn(const Point *region, int64_t count, Sides sides);
    bool is_free(const std::vector<Point> &ring, Sides sides);
    bool is_clear(Point one, Point other, const std::vector<Point> &ring, double reach) const;

    BorderGraph &graph;
    const geoseg_polygon_options &options;
    uint32_t stamp = 0;
    std::vector<Point> places;
    std::vector<int64_t> kept;
    std::unordered_map<int32_t, Point> shifted;
    DrawnRings drawn_rings;
};

}  // namespace geoseg_vector
#endif
