// The borders of a class map as a graph of corners, built row by row. The readable form, with the
// reasons, is geoseg/vector/graph.py; names are the same there.
#ifndef GEOSEG_BORDER_GRAPH_H
#define GEOSEG_BORDER_GRAPH_H

#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "geoseg_vector.h"

namespace geoseg_vector {

enum Direction { NORTH, EAST, SOUTH, WEST };
constexpr int32_t GONE = -1;   // no link, or a quadrant whose feature is written
constexpr int32_t FREED = -2;  // the node that a link led to is no longer kept
constexpr int32_t OUTSIDE = 0;
constexpr int32_t NODATA = -1;
constexpr int32_t LEFT_OUT = -2;
constexpr int64_t WAYPOINT_ROWS = 16;

struct Node {
    int32_t x, y;
    int32_t links[4];
    int32_t faces[4];
    uint32_t stamp = 0;   // of the border in work
    int32_t index = 0;    // in that border
    uint8_t left = 4;
    uint8_t degree;
    uint8_t passed = 0;
    uint8_t split = 0;
    bool straight = false;
    bool is_frame = false;
    bool kept = false;
    bool rounded = false;
    bool done = false;
    bool shifted = false;
    bool settled = false;
    bool elsewhere = false;

    bool is_junction() const { return is_frame || degree > 2; }
};

struct Label {
    int64_t first_pixel;
    int64_t pixels = 0;
    int64_t confident = 0;
    double confidence = 0;
    int32_t code;
    int32_t parent;
    int32_t feature;
    int32_t first_node = GONE;
    int32_t starts = GONE, last_start = GONE;        // in BorderGraph::start_pool
    int32_t next_member = GONE, last_member;         // labels of a feature, as a list
    bool on_edge = false;
    bool waiting = false;
};

struct Start {
    int32_t node, next;
};

struct Run {
    int64_t start, stop;
    int32_t label;
};

struct RowOfNodes {
    std::vector<std::pair<int32_t, int32_t>> nodes;  // x, node; some may be gone
    int64_t alive = 0;
};

class BorderGraph {
  public:
    BorderGraph(const geoseg_polygon_options &options, bool shapes);
    void add_row(const int32_t *raw, const float *confidence);
    void finish();
    int32_t pop_complete();  // a feature, or GONE
    int32_t find(int32_t label);
    int32_t find_feature(int32_t label);
    void faces_of(int32_t feature, std::vector<int32_t> &faces);
    void drop(int32_t feature);
    void release(int32_t node, uint8_t quadrants);
    bool holds(int32_t node, int32_t x, int64_t y) const {
        return nodes[node].left > 0 && nodes[node].x == x && nodes[node].y == y;
    }
    RowOfNodes *row_of_nodes(int64_t y) {
        if (y < first_row || y >= first_row + static_cast<int64_t>(rows.size())) return nullptr;
        return &rows[y - first_row];
    }

    std::size_t bytes() const {
        // Each node is also listed in its row.
        return nodes.capacity() * (sizeof(Node) + sizeof(std::pair<int32_t, int32_t>)) +
               labels.capacity() * sizeof(Label) + start_pool.capacity() * sizeof(Start);
    }

    std::vector<Node> nodes;
    std::vector<Label> labels;
    std::vector<Start> start_pool;

  private:
    int32_t join_run(int64_t start, int64_t stop, int32_t code, std::size_t &at);
    int32_t unite(int32_t one, int32_t other);
    void unite_features(int32_t one, int32_t other);
    int32_t new_label(int32_t code, int64_t first_pixel);
    int32_t new_node();
    void cut(const int32_t *raw);
    void mark_edges(const int32_t *raw);
    void mark_pair(const Run &above, const Run &below, const int32_t *raw);
    void add_nodes();
    int32_t add_node(int64_t x, const int32_t *around, int32_t pending);
    void add_start(int32_t node, const int32_t *around, int count);
    void push_start(int32_t label, int32_t node);
    void close();
    void start_row_of_nodes();

    int64_t height, width, margin, row = 0;
    int32_t connectivity;
    bool shapes, waypoints;
    std::vector<int32_t> free_nodes, free_labels, free_starts;
    std::vector<int32_t> above_raw, up;
    std::vector<Run> above, below;
    std::vector<int64_t> seen;  // per label: the last row in which its feature goes on
    std::deque<std::pair<int64_t, int32_t>> complete;
    std::deque<RowOfNodes> rows;
    int64_t first_row = 0;
};

}  // namespace geoseg_vector
#endif
