// Features from the border graph; the readable form is geoseg/vector/outline.py and trace.py.
#include <algorithm>
#include <limits>
#include <memory>
#include <new>

#include "border_shape.h"

namespace geoseg_vector {

struct Step {
    int32_t node;
    uint8_t towards;
    uint8_t quadrants;  // bits
};

using Outline = std::vector<Step>;

class Tracer {
  public:
    explicit Tracer(const geoseg_polygon_options &given)
        : options(given), classes(given.square_classes, given.square_classes + given.square_count),
          shapes(given.simplify > 0 || given.smooth > 0 || given.square), graph(options, shapes),
          shaper(graph, options) {}

    void add_rows(const int32_t *codes, const float *confidence, int64_t rows) {
        for (int64_t i = 0; i < rows; ++i)
            graph.add_row(codes + i * options.width,
                          confidence ? confidence + i * options.width : nullptr);
    }
    void finish() { graph.finish(); }
    int64_t pop(int64_t most, geoseg_polygon_batch &batch);
    int64_t bytes() const;

  private:
    void write(int32_t feature);
    void walk_face(int32_t face);
    void walk(int32_t start, int towards);
    int turn(Node &corner, int arrived, uint8_t &quadrants);
    bool meets_itself(Node &corner, int quadrant);
    bool shape(const Outline &outline, int32_t face);
    bool shape_border(const Outline &outline, size_t begin, size_t end, int32_t face);
    void corners(const Outline &outline, size_t begin, size_t end, std::vector<int32_t> &nodes) const;
    template <class Use> void cut_borders(const Outline &outline, Use use) const;
    bool can_be_square(const std::vector<int32_t> &nodes, Sides sides) const;
    void draw(const Outline &outline);
    void describe(int32_t feature);

    geoseg_polygon_options options;
    std::vector<int32_t> classes;
    bool shapes;
    BorderGraph graph;
    Shaper shaper;
    std::vector<int32_t> faces, border;
    std::vector<Outline> outlines;
    size_t outline_count = 0;
    std::vector<size_t> face_ends;
    std::vector<uint8_t> face_squared;
    std::vector<Point> drawn;
    // The batch.
    std::vector<int32_t> class_id;
    std::vector<int64_t> pixels, ring_offsets, polygon_offsets, feature_offsets;
    std::vector<double> confidence;
    std::vector<uint8_t> on_edge, squared;
    std::vector<Point> xy;
};

int64_t Tracer::pop(int64_t most, geoseg_polygon_batch &batch) {
    class_id.clear(), pixels.clear(), confidence.clear(), on_edge.clear(), squared.clear(), xy.clear();
    ring_offsets.assign(1, 0), polygon_offsets.assign(1, 0), feature_offsets.assign(1, 0);
    while (static_cast<int64_t>(class_id.size()) < most) {
        int32_t feature = graph.pop_complete();
        if (feature == GONE) break;
        write(feature);
    }
    batch.features = static_cast<int64_t>(class_id.size());
    batch.polygons = static_cast<int64_t>(polygon_offsets.size()) - 1;
    batch.rings = static_cast<int64_t>(ring_offsets.size()) - 1;
    batch.vertices = static_cast<int64_t>(xy.size());
    batch.class_id = class_id.data();
    batch.pixels = pixels.data();
    batch.confidence = confidence.data();
    batch.on_edge = on_edge.data();
    batch.xy = xy.empty() ? nullptr : &xy[0].x;
    batch.ring_offsets = ring_offsets.data();
    batch.polygon_offsets = polygon_offsets.data();
    batch.feature_offsets = feature_offsets.data();
    batch.squared = squared.data();
    return batch.features;
}

template <class T> static size_t bytes_of(const std::vector<T> &values) {
    return values.capacity() * sizeof(T);
}

int64_t Tracer::bytes() const {
    size_t bytes = graph.bytes() + bytes_of(xy) + bytes_of(ring_offsets) + bytes_of(drawn);
    for (const Outline &outline : outlines) bytes += bytes_of(outline);
    return static_cast<int64_t>(bytes);
}

void Tracer::write(int32_t feature) {
    graph.faces_of(feature, faces);
    outline_count = 0;
    face_ends.clear();
    for (int32_t face : faces) {
        walk_face(face);
        face_ends.push_back(outline_count);
    }
    face_squared.assign(faces.size(), 0);
    if (shapes)
        for (size_t i = 0, k = 0; i < faces.size(); ++i)
            for (; k < face_ends[i]; ++k) face_squared[i] |= shape(outlines[k], faces[i]);
    if (graph.labels[feature].code != NODATA) {
        for (size_t i = 0, k = 0; i < faces.size(); ++i) {
            for (; k < face_ends[i]; ++k) {
                draw(outlines[k]);
                ring_offsets.push_back(static_cast<int64_t>(xy.size()));
            }
            polygon_offsets.push_back(static_cast<int64_t>(ring_offsets.size()) - 1);
            squared.push_back(face_squared[i]);
        }
        feature_offsets.push_back(static_cast<int64_t>(polygon_offsets.size()) - 1);
        describe(feature);
    }
    for (size_t k = 0; k < outline_count; ++k)
        for (const Step &step : outlines[k]) {
            bool was_moved = graph.nodes[step.node].elsewhere;
            graph.release(step.node, step.quadrants);
            if (was_moved && !graph.nodes[step.node].left) shaper.forget(step.node);
        }
    graph.drop(feature);
}

void Tracer::describe(int32_t feature) {
    int64_t count = 0, confident = 0;
    double total = 0;
    bool edge = false;
    for (int32_t face : faces) {
        const Label &label = graph.labels[face];
        count += label.pixels;
        confident += label.confident;
        total += label.confidence;
        edge |= label.on_edge;
    }
    class_id.push_back(graph.labels[feature].code);
    pixels.push_back(count);
    confidence.push_back(confident ? total / static_cast<double>(confident)
                                   : std::numeric_limits<double>::quiet_NaN());
    on_edge.push_back(edge);
}

void Tracer::walk_face(int32_t face) {
    walk(graph.labels[face].first_node, SOUTH);
    for (int32_t s = graph.labels[face].starts; s != GONE; s = graph.start_pool[s].next) {
        int32_t start = graph.start_pool[s].node;
        const Node &node = graph.nodes[start];
        if (node.passed >> EAST & 1) continue;
        if (node.faces[1] == GONE || graph.find(node.faces[1]) != face) continue;
        if (node.faces[3] == GONE || graph.find(node.faces[3]) != face) continue;
        walk(start, EAST);
    }
}

void Tracer::walk(int32_t start, int towards) {
    if (outline_count == outlines.size()) outlines.emplace_back();
    Outline &steps = outlines[outline_count++];
    steps.clear();
    int arrived = towards == SOUTH ? (towards + 1) % 4 : (towards + 3) % 4;
    for (int32_t node = start;;) {
        Node &corner = graph.nodes[node];
        uint8_t quadrants;
        int leaves = turn(corner, arrived, quadrants);
        if (node == start && !steps.empty() && leaves == towards) return;
        corner.passed |= static_cast<uint8_t>(1 << leaves);
        steps.push_back({node, static_cast<uint8_t>(leaves), quadrants});
        node = corner.links[leaves];
        arrived = leaves;
    }
}

int Tracer::turn(Node &corner, int arrived, uint8_t &quadrants) {
    int left = (arrived + 3) % 4, right = (arrived + 1) % 4;
    quadrants = static_cast<uint8_t>(1 << left);
    if (corner.degree == 4) return meets_itself(corner, left) ? right : left;
    if (corner.links[left] != GONE) return left;
    quadrants |= static_cast<uint8_t>(1 << arrived);
    if (corner.links[arrived] != GONE) return arrived;
    quadrants |= static_cast<uint8_t>(1 << right);
    return right;
}

bool Tracer::meets_itself(Node &corner, int quadrant) {
    uint8_t bit = quadrant % 2 ? 1 : 2;
    if (!(corner.split & bit)) {
        int32_t one = corner.faces[quadrant], other = corner.faces[(quadrant + 2) % 4];
        if (one != GONE && other != GONE && graph.find(one) == graph.find(other)) corner.split |= bit;
    }
    return corner.split & bit;
}

template <class Use> void Tracer::cut_borders(const Outline &outline, Use use) const {
    size_t count = outline.size(), first = 0;
    while (first < count && !graph.nodes[outline[first].node].is_junction()) ++first;
    if (first == count) {
        use(size_t(0), count);
        return;
    }
    size_t begin = first;
    for (size_t i = first + 1; i <= first + count; ++i)
        if (graph.nodes[outline[i % count].node].is_junction()) {
            use(begin, i);
            begin = i;
        }
}

void Tracer::corners(const Outline &outline, size_t begin, size_t end, std::vector<int32_t> &nodes) const {
    nodes.clear();
    for (size_t i = begin; i <= end; ++i) {
        int32_t node = outline[i % outline.size()].node;
        if (!graph.nodes[node].straight) nodes.push_back(node);
    }
}

bool Tracer::shape(const Outline &outline, int32_t face) {
    bool is_square = false;
    cut_borders(outline, [&](size_t begin, size_t end) {
        is_square |= shape_border(outline, begin, end, face);
    });
    return is_square;
}

bool Tracer::shape_border(const Outline &outline, size_t begin, size_t end, int32_t face) {
    const Step &first = outline[begin % outline.size()];
    int32_t label = graph.nodes[first.node].faces[(first.towards + 1) % 4];
    corners(outline, begin, end, border);
    if (border.size() == 2) return false;
    if (graph.nodes[border[1]].done)
        return std::any_of(border.begin(), border.end(),
                           [&](int32_t node) { return graph.nodes[node].shifted; });
    for (int32_t node : border)  // around, any of them may come second from the other side
        graph.nodes[node].done = !graph.nodes[node].is_junction();
    Sides sides = {face, label == GONE ? GONE : graph.find(label)};
    shaper.canonical(border);
    std::vector<int32_t> everything;
    if (options.square)
        for (size_t i = begin; i < end; ++i) everything.push_back(outline[i % outline.size()].node);
    if (can_be_square(border, sides) && shaper.square(border, everything, sides)) return true;
    if (options.simplify > 0)
        shaper.simplify(border, sides);
    else
        shaper.keep_all(border);
    if (options.smooth > 0) shaper.mark_rounded(border, sides);
    if (options.square) shaper.settle(border, everything);
    return false;
}

bool Tracer::can_be_square(const std::vector<int32_t> &nodes, Sides sides) const {
    if (!options.square || graph.nodes[nodes[0]].is_junction()) return false;
    for (int32_t wanted : classes)
        for (int32_t side : {sides.left, sides.right})
            if (side != GONE && graph.labels[side].code == wanted) return true;
    return false;
}

void Tracer::draw(const Outline &outline) {
    if (!shapes) {
        for (const Step &step : outline) {
            const Node &node = graph.nodes[step.node];
            xy.push_back({double(node.x), double(node.y)});
        }
        xy.push_back(xy[static_cast<size_t>(ring_offsets.back())]);
        return;
    }
    bool begun = false;
    std::vector<int32_t> nodes;
    cut_borders(outline, [&](size_t begin, size_t end) {
        corners(outline, begin, end, border);
        nodes = border;
        shaper.canonical(nodes);
        shaper.draw(nodes, drawn);
        bool same_way = border[0] == nodes[0];
        if (border.front() == border.back()) {
            size_t at = 0;
            while (border[at] != nodes[0]) ++at;
            same_way = border[at + 1] == nodes[1];
        }
        if (same_way)
            xy.insert(xy.end(), drawn.begin() + begun, drawn.end());
        else
            xy.insert(xy.end(), drawn.rbegin() + begun, drawn.rend());
        begun = true;
    });
}

}  // namespace geoseg_vector

using geoseg_vector::Tracer;

template <class Work> static int64_t guarded(Work work) {
    try {
        return work();
    } catch (const geoseg_vector::Stopped &) {
        return -2;
    } catch (const std::bad_alloc &) {
        return -1;
    } catch (const std::length_error &) {
        return -1;
    }
}

extern "C" {

void *geoseg_polygons_new(const geoseg_polygon_options *options) {
    try {
        return new Tracer(*options);
    } catch (const std::bad_alloc &) {
        return nullptr;
    }
}

void geoseg_polygons_free(void *handle) { delete static_cast<Tracer *>(handle); }

int32_t geoseg_polygons_add_rows(void *handle, const int32_t *codes, const float *confidence,
                                 int64_t rows) {
    return static_cast<int32_t>(guarded([&] {
        static_cast<Tracer *>(handle)->add_rows(codes, confidence, rows);
        return int64_t(0);
    }));
}

int32_t geoseg_polygons_finish(void *handle) {
    return static_cast<int32_t>(guarded([&] {
        static_cast<Tracer *>(handle)->finish();
        return int64_t(0);
    }));
}

int64_t geoseg_polygons_bytes(const void *handle) {
    return static_cast<const Tracer *>(handle)->bytes();
}

int64_t geoseg_polygons_pop(void *handle, int64_t most, geoseg_polygon_batch *batch) {
    return guarded([&] { return static_cast<Tracer *>(handle)->pop(most, *batch); });
}
}
