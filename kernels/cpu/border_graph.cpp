// See border_graph.h; the readable form is geoseg/vector/graph.py.
#include "border_graph.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace geoseg_vector {

static int64_t rows_below(const geoseg_polygon_options &options) {
    double reach = std::max(options.simplify + options.smooth, options.square_shift);
    int64_t rows = reach > 0 ? static_cast<int64_t>(std::ceil(reach / options.aspect)) + 2 : 0;
    return options.square ? rows + WAYPOINT_ROWS : rows;
}

BorderGraph::BorderGraph(const geoseg_polygon_options &options, bool shapes)
    : height(options.height), width(options.width), margin(rows_below(options)),
      connectivity(options.connectivity), shapes(shapes), waypoints(options.square != nullptr),
      above_raw(options.width, NODATA), up(options.width + 1, GONE) {
    new_label(NODATA, -1);
    above.push_back({0, width, OUTSIDE});
}

int32_t BorderGraph::find(int32_t label) {
    while (labels[label].parent != label) {
        labels[label].parent = labels[labels[label].parent].parent;
        label = labels[label].parent;
    }
    return label;
}

int32_t BorderGraph::find_feature(int32_t label) {
    while (labels[label].feature != label) {
        labels[label].feature = labels[labels[label].feature].feature;
        label = labels[label].feature;
    }
    return label;
}

int32_t BorderGraph::new_label(int32_t code, int64_t first_pixel) {
    int32_t label;
    if (free_labels.empty()) {
        label = static_cast<int32_t>(labels.size());
        labels.emplace_back();
        seen.push_back(-1);
    } else {
        label = free_labels.back();
        free_labels.pop_back();
        labels[label] = Label();
        seen[label] = -1;
    }
    Label &made = labels[label];
    made.code = code;
    made.first_pixel = first_pixel;
    made.parent = made.feature = made.last_member = label;
    return label;
}

int32_t BorderGraph::new_node() {
    if (free_nodes.empty()) {
        nodes.emplace_back();
        return static_cast<int32_t>(nodes.size()) - 1;
    }
    int32_t node = free_nodes.back();
    free_nodes.pop_back();
    nodes[node] = Node();
    return node;
}

void BorderGraph::add_row(const int32_t *raw, const float *confidence) {
    cut(raw);
    size_t at = 0;
    for (Run &run : below) {
        int32_t code = std::max(raw[run.start], NODATA);
        run.label = join_run(run.start, run.stop, code, at);
    }
    for (const Run &run : below) {
        Label &face = labels[find(run.label)];
        face.pixels += run.stop - run.start;
        if (confidence && face.code != NODATA) {
            double total = 0;
            for (int64_t x = run.start; x < run.stop; ++x)
                if (confidence[x] == confidence[x]) {
                    total += confidence[x];
                    ++face.confident;
                }
            face.confidence += total;
        }
    }
    mark_edges(raw);
    add_nodes();
    close();
    above.swap(below);
    std::memcpy(above_raw.data(), raw, width * sizeof(int32_t));
    ++row;
}

void BorderGraph::finish() {
    below.assign(1, {0, width, OUTSIDE});
    std::vector<int32_t> nothing(width, NODATA);
    mark_edges(nothing.data());
    add_nodes();
    close();
    margin = -2;
}

int32_t BorderGraph::pop_complete() {
    if (complete.empty() || complete.front().first + margin + 1 >= row) return GONE;
    int32_t feature = complete.front().second;
    complete.pop_front();
    return feature;
}

void BorderGraph::faces_of(int32_t feature, std::vector<int32_t> &faces) {
    faces.clear();
    for (int32_t m = feature; m != GONE; m = labels[m].next_member)
        if (labels[m].parent == m) faces.push_back(m);
    std::sort(faces.begin(), faces.end(), [&](int32_t a, int32_t b) {
        return labels[a].first_pixel < labels[b].first_pixel;
    });
}

void BorderGraph::drop(int32_t feature) {
    for (int32_t m = feature; m != GONE;) {
        int32_t next = labels[m].next_member;
        for (int32_t s = labels[m].starts; s != GONE; s = start_pool[s].next) free_starts.push_back(s);
        free_labels.push_back(m);
        m = next;
    }
}

void BorderGraph::release(int32_t node, uint8_t quadrants) {
    Node &corner = nodes[node];
    for (int q = 0; q < 4; ++q)
        if (quadrants >> q & 1) {
            corner.faces[q] = GONE;
            --corner.left;
        }
    if (corner.left) return;
    for (int d = 0; d < 4; ++d)
        if (corner.links[d] >= 0) nodes[corner.links[d]].links[(d + 2) % 4] = FREED;
    free_nodes.push_back(node);
    if (!shapes) return;
    RowOfNodes &here = rows[corner.y - first_row];
    if (--here.alive == 0) {
        std::vector<std::pair<int32_t, int32_t>>().swap(here.nodes);
        while (!rows.empty() && rows.front().alive == 0 && first_row < row) {
            rows.pop_front();
            ++first_row;
        }
    } else if (here.nodes.size() > 64 && here.alive * 2 < static_cast<int64_t>(here.nodes.size())) {
        auto gone = [&](const std::pair<int32_t, int32_t> &entry) {
            return !holds(entry.second, entry.first, corner.y);
        };
        here.nodes.erase(std::remove_if(here.nodes.begin(), here.nodes.end(), gone), here.nodes.end());
        here.nodes.shrink_to_fit();
    }
}

void BorderGraph::cut(const int32_t *raw) {
    constexpr int64_t BLOCK = 16;
    below.clear();
    int64_t start = 0, x = 1;
    while (x < width) {
        if (x + BLOCK <= width && !std::memcmp(raw + x, raw + x - 1, BLOCK * sizeof(int32_t))) {
            x += BLOCK;
            continue;
        }
        int64_t stop = std::min(x + BLOCK, width);
        for (; x < stop; ++x)
            if (raw[x] != raw[x - 1] && (raw[x] >= 0 || raw[x - 1] >= 0)) {
                below.push_back({start, x, GONE});
                start = x;
            }
    }
    below.push_back({start, width, GONE});
}

int32_t BorderGraph::join_run(int64_t start, int64_t stop, int32_t code, size_t &at) {
    int32_t found = GONE;
    while (above[at].stop <= start) ++at;
    for (size_t i = at; i < above.size() && above[i].start < stop; ++i)
        if (labels[above[i].label].code == code)
            found = found == GONE ? above[i].label : unite(found, above[i].label);
    bool at_edge = start == 0 || stop == width || row == 0 || row == height - 1;
    if (code == NODATA && at_edge) found = found == GONE ? OUTSIDE : unite(found, OUTSIDE);
    return found == GONE ? new_label(code, row * width + start) : found;
}

int32_t BorderGraph::unite(int32_t one, int32_t other) {
    int32_t a = find(one), b = find(other);
    if (a == b) return a;
    if (labels[b].first_pixel < labels[a].first_pixel) std::swap(a, b);
    Label &into = labels[a], &gone = labels[b];
    gone.parent = a;
    into.pixels += gone.pixels;
    into.confidence += gone.confidence;
    into.confident += gone.confident;
    into.on_edge |= gone.on_edge;
    if (gone.starts != GONE) {
        if (into.starts == GONE)
            into.starts = gone.starts;
        else
            start_pool[into.last_start].next = gone.starts;
        into.last_start = gone.last_start;
        gone.starts = gone.last_start = GONE;
    }
    unite_features(a, b);
    return a;
}

void BorderGraph::unite_features(int32_t one, int32_t other) {
    int32_t a = find_feature(one), b = find_feature(other);
    if (a == b) return;
    if (labels[b].first_pixel < labels[a].first_pixel) std::swap(a, b);
    labels[b].feature = a;
    labels[labels[a].last_member].next_member = b;
    labels[a].last_member = labels[b].last_member;
    seen[a] = std::max(seen[a], seen[b]);
}

void BorderGraph::mark_pair(const Run &one, const Run &other, const int32_t *raw) {
    // `other` has no class; a class that was left out is not ground without one.
    if (labels[one.label].code == NODATA || labels[other.label].code != NODATA) return;
    int64_t start = std::max(one.start, other.start), stop = std::min(one.stop, other.stop);
    for (int64_t x = start; x < stop; ++x)
        if (raw[x] == NODATA) {
            labels[find(one.label)].on_edge = true;
            return;
        }
}

void BorderGraph::mark_edges(const int32_t *raw) {
    for (const Run &run : below)
        if (run.start == 0 || run.stop == width || raw[run.start - 1] == NODATA ||
            raw[run.stop] == NODATA)
            labels[find(run.label)].on_edge = true;
    for (size_t i = 0, j = 0; i < above.size() && j < below.size();) {
        mark_pair(above[i], below[j], raw);
        mark_pair(below[j], above[i], above_raw.data());
        if (above[i].stop < below[j].stop)
            ++i;
        else if (above[i].stop > below[j].stop)
            ++j;
        else
            ++i, ++j;
    }
}

void BorderGraph::start_row_of_nodes() {
    if (!shapes) return;
    while (first_row + static_cast<int64_t>(rows.size()) <= row) rows.emplace_back();
}

void BorderGraph::add_nodes() {
    start_row_of_nodes();
    int32_t pending = GONE, nw = OUTSIDE, sw = OUTSIDE;
    size_t i = 0, j = 0;
    while (true) {
        int64_t a = i < above.size() ? above[i].start : width;
        int64_t b = j < below.size() ? below[j].start : width;
        int64_t x = std::min(a, b);
        int32_t ne = x == width ? OUTSIDE : a == x ? above[i].label : nw;
        int32_t se = x == width ? OUTSIDE : b == x ? below[j].label : sw;
        if (a == x) ++i;
        if (b == x) ++j;
        int32_t around[4] = {nw, ne, se, sw};
        pending = add_node(x, around, pending);
        if (x == width) return;
        nw = ne;
        sw = se;
    }
}

int32_t BorderGraph::add_node(int64_t x, const int32_t *around, int32_t pending) {
    int32_t nw = labels[around[0]].code, ne = labels[around[1]].code;
    int32_t se = labels[around[2]].code, sw = labels[around[3]].code;
    bool north = nw != ne, east = ne != se, south = se != sw, west = sw != nw;
    int count = north + east + south + west;
    bool straight = count == 2 && north == south;
    bool waypoint = straight && north && waypoints && row % WAYPOINT_ROWS == 0;
    if (count == 0 || (straight && !waypoint)) return pending;
    int32_t node = new_node();
    Node &corner = nodes[node];
    corner.x = static_cast<int32_t>(x);
    corner.y = static_cast<int32_t>(row);
    corner.degree = static_cast<uint8_t>(count);
    corner.straight = straight;
    corner.is_frame = (x == 0 || x == width) && (row == 0 || row == height);
    std::copy(around, around + 4, corner.faces);
    int32_t links[4] = {north ? up[x] : GONE, GONE, GONE, west ? pending : GONE};
    std::copy(links, links + 4, corner.links);
    if (north) nodes[up[x]].links[SOUTH] = node;
    if (west) nodes[pending].links[EAST] = node;
    up[x] = south ? node : GONE;
    if (shapes) {
        RowOfNodes &here = rows[row - first_row];
        here.nodes.emplace_back(corner.x, node);
        ++here.alive;
    }
    if (east && south) add_start(node, around, count);
    return east ? node : GONE;
}

void BorderGraph::push_start(int32_t label, int32_t node) {
    int32_t start;
    if (free_starts.empty()) {
        start = static_cast<int32_t>(start_pool.size());
        start_pool.emplace_back();
    } else {
        start = free_starts.back();
        free_starts.pop_back();
    }
    start_pool[start] = {node, GONE};
    Label &face = labels[label];
    if (face.starts == GONE)
        face.starts = start;
    else
        start_pool[face.last_start].next = start;
    face.last_start = start;
}

void BorderGraph::add_start(int32_t node, const int32_t *around, int count) {
    int32_t se = find(around[2]);
    if (labels[se].first_node == GONE) labels[se].first_node = node;
    bool across = labels[around[1]].code == labels[around[3]].code;
    if (count == 2 || across) {
        int32_t ne = find(around[1]), sw = find(around[3]);
        if (ne != OUTSIDE) push_start(ne, node);
        if (sw != ne && sw != OUTSIDE) push_start(sw, node);
    }
    if (count != 4 || connectivity != 8) return;
    bool along = labels[around[0]].code == labels[around[2]].code;
    if (along && labels[around[0]].code != NODATA) unite_features(around[0], around[2]);
    if (across && labels[around[1]].code != NODATA) unite_features(around[1], around[3]);
}

void BorderGraph::close() {
    for (const Run &run : below) seen[find_feature(run.label)] = row;
    for (const Run &run : above) {
        int32_t feature = find_feature(run.label);
        if (feature == OUTSIDE || seen[feature] == row || labels[feature].waiting) continue;
        labels[feature].waiting = true;
        complete.emplace_back(row - 1, feature);
    }
}

}  // namespace geoseg_vector
