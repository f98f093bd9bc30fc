// Specks and holes of a class map, decided row by row; meaning and names as in
// geoseg/vector/sieve_reference.py. Regions are numbers in reading order of their first pixels: of
// two regions that join, the smaller number stays, so a number also breaks ties.
#include "geoseg_sieve.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <new>
#include <utility>
#include <vector>

namespace {

constexpr int32_t NODATA = -1;
constexpr int32_t NONE = -1;
constexpr int64_t NO_EDGE = std::numeric_limits<int64_t>::max();

struct Rules {
    int64_t min_area, fill_holes;
    bool corners_join;  // connectivity 8
    int64_t limit() const { return std::max(min_area, fill_holes); }
    // A hole that is no speck depends on what is around it.
    bool may_be_hole(int64_t area) const { return area >= min_area && area < fill_holes; }
    bool corners_count() const { return corners_join || fill_holes > min_area; }
};

struct Region {
    int64_t area;
    int32_t parent;
    int32_t class_id;
    bool fixed;   // keeps its class for ever
    bool ground;  // touches the map's edge or nodata
};

// A run of equal values in the row at hand.
struct Piece {
    int32_t first, stop, class_id, region;
};

// A run of a region that may change.
struct Run {
    int32_t row, first, stop, region;
};

// What two regions share: pixel edges, the first of them; none where they touch at a corner only.
// Below zero: some fixed region of class ~number.
struct Border {
    int64_t key;
    int32_t a, b, length;
};

struct Neighbour {
    int64_t key;
    int32_t other, length;
};

int32_t find(std::vector<Region> &regions, int32_t r) {
    while (regions[r].parent != r) {
        regions[r].parent = regions[regions[r].parent].parent;
        r = regions[r].parent;
    }
    return r;
}

// Decides regions whose surroundings are complete. All vectors are by region number.
class Decision {
  public:
    Decision(std::vector<Region> &regions, const std::vector<Border> &borders, const Rules &rules)
        : regions_(regions), rules_(rules), waits_(regions.size()) {
        gather(borders);
        fix_what_cannot_change();
    }

    bool is_small(int32_t r) const { return regions_[r].parent == r && !regions_[r].fixed; }

    bool waits(int32_t r) const { return waits_[r]; }

    // Lets regions wait that touch open ones, directly or through others.
    void wait_for(std::vector<int32_t> open) {
        for (int32_t r : open) waits_[r] = true;
        while (!open.empty()) {
            const int32_t r = open.back();
            open.pop_back();
            for (int64_t i = starts_[r]; i < starts_[r + 1]; ++i) {
                const int32_t o = neighbours_[i].other;
                if (o < 0 || waits_[o] || !is_small(o)) continue;
                waits_[o] = true;
                open.push_back(o);
            }
        }
    }

    void run() {
        const auto n = static_cast<int32_t>(regions_.size());
        owner_.resize(n);
        class_of_.resize(n);
        next_.assign(n, NONE);
        last_.resize(n);
        for (int32_t r = 0; r < n; ++r) {
            owner_[r] = last_[r] = r;
            class_of_[r] = regions_[r].class_id;
        }
        fixed_.resize(n);
        for (int32_t r = 0; r < n; ++r) fixed_[r] = regions_[r].fixed;
        for (int32_t r = 0; r < n; ++r)
            if (is_small(r) && !waits_[r] && !decide_alone(r)) queue_.push_back({area(r), r});
        std::make_heap(queue_.begin(), queue_.end(), later);
        while (!queue_.empty()) {
            const auto [size, r] = queue_.front();
            std::pop_heap(queue_.begin(), queue_.end(), later);
            queue_.pop_back();
            if (owner_[r] != r || fixed_[r] || area(r) != size) continue;
            const int32_t c = choose(r);
            if (c != NODATA) become(r, c);
        }
    }

    int32_t class_of(int32_t r) { return class_of_[find_owner(r)]; }

  private:
    using Entry = std::pair<int64_t, int32_t>;

    // What a class offers to a region that may become part of it.
    struct Claim {
        int32_t class_id;
        int64_t length, area, key;
        bool beats(const Claim &o) const {
            if (length != o.length) return length > o.length;
            if (area != o.area) return area > o.area;
            return key < o.key;
        }
    };

    static bool later(const Entry &a, const Entry &b) { return a > b; }

    int64_t &area(int32_t r) { return regions_[r].area; }

    int32_t root(int32_t r) const { return r < 0 ? r : regions_[r].parent; }

    void gather(const std::vector<Border> &borders) {
        starts_.assign(regions_.size() + 2, 0);
        for (const Border &b : borders)
            for (int32_t r : {root(b.a), root(b.b)})
                if (r >= 0 && !regions_[r].fixed) ++starts_[r + 2];
        for (size_t i = 2; i < starts_.size(); ++i) starts_[i] += starts_[i - 1];
        neighbours_.resize(starts_.back());
        for (const Border &b : borders) {
            const int32_t p = root(b.a), q = root(b.b);
            if (p >= 0 && !regions_[p].fixed) neighbours_[starts_[p + 1]++] = {b.key, q, b.length};
            if (q >= 0 && !regions_[q].fixed) neighbours_[starts_[q + 1]++] = {b.key, p, b.length};
        }
    }

    // Large enough to be no speck, and never a hole: on the ground's edge, or between two classes
    // that stay. Such regions need not wait for others, which keeps less of the map in memory.
    void fix_what_cannot_change() {
        if (rules_.fill_holes <= rules_.min_area) return;
        std::vector<int32_t> check;
        for (size_t r = 0; r < regions_.size(); ++r)
            if (is_candidate(r)) check.push_back(static_cast<int32_t>(r));
        while (!check.empty()) {
            const int32_t r = check.back();
            check.pop_back();
            if (!is_candidate(r) || !cannot_be_hole(r)) continue;
            regions_[r].fixed = true;
            for (int64_t i = starts_[r]; i < starts_[r + 1]; ++i) {
                const int32_t o = neighbours_[i].other;
                if (o >= 0 && is_candidate(o)) check.push_back(o);
            }
        }
    }

    bool is_candidate(int32_t r) const { return is_small(r) && regions_[r].area >= rules_.min_area; }

    bool cannot_be_hole(int32_t r) const {
        if (regions_[r].ground) return true;
        int32_t seen = NODATA;
        for (int64_t i = starts_[r]; i < starts_[r + 1]; ++i) {
            const Neighbour &n = neighbours_[i];
            if (!surrounds(n) || n.other == r) continue;
            if (n.other >= 0 && !regions_[n.other].fixed) continue;
            const int32_t c = n.other < 0 ? ~n.other : regions_[n.other].class_id;
            if (seen != NODATA && seen != c) return true;
            seen = c;
        }
        return false;
    }

    // Where corners do not join, a way out of a hole may lead through one.
    bool surrounds(const Neighbour &n) const { return n.length > 0 || !rules_.corners_join; }

    int32_t find_owner(int32_t r) {
        while (owner_[r] != r) {
            owner_[r] = owner_[owner_[r]];
            r = owner_[r];
        }
        return r;
    }

    template <typename Visit> void each_neighbour(int32_t r, Visit visit) {
        for (int32_t member = r; member != NONE; member = next_[member])
            for (int64_t i = starts_[member]; i < starts_[member + 1]; ++i) {
                const Neighbour &n = neighbours_[i];
                const int32_t o = n.other < 0 ? n.other : find_owner(n.other);
                if (o != r) visit(n, o);
            }
    }

    bool is_fixed(int32_t o) const { return o < 0 || fixed_[o]; }

    int32_t class_at(int32_t o) const { return o < 0 ? ~o : class_of_[o]; }

    // The class that a region gets, or NODATA where it stays as it is.
    int32_t choose(int32_t r) {
        claims_.clear();
        int32_t around = NODATA;
        bool one_class = !regions_[r].ground;
        each_neighbour(r, [&](const Neighbour &n, int32_t o) {
            const int32_t c = class_at(o);
            if (surrounds(n)) {
                one_class = one_class && (around == NODATA || around == c);
                around = c;
            }
            if (n.length > 0) claim(c, n, is_fixed(o) ? rules_.min_area : area(o));
        });
        const bool hole = one_class && area(r) < rules_.fill_holes;
        if (claims_.empty() || !(hole || area(r) < rules_.min_area)) return NODATA;
        const Claim *best = &claims_[0];
        for (const Claim &c : claims_)
            if (c.beats(*best)) best = &c;
        return best->class_id;
    }

    void claim(int32_t class_id, const Neighbour &n, int64_t other_area) {
        other_area = std::min(other_area, rules_.min_area);
        for (Claim &c : claims_)
            if (c.class_id == class_id) {
                c.length += n.length;
                c.area = std::max(c.area, other_area);
                c.key = std::min(c.key, n.key);
                return;
            }
        claims_.push_back({class_id, n.length, other_area, n.key});
    }

    // Most specks lie between regions that stay: nothing else depends on them.
    bool decide_alone(int32_t r) {
        for (int64_t i = starts_[r]; i < starts_[r + 1]; ++i) {
            const int32_t o = neighbours_[i].other;
            if (o != r && o >= 0 && !regions_[o].fixed) return false;
        }
        const int32_t c = choose(r);
        if (c != NODATA) class_of_[r] = c;
        return true;
    }

    void become(int32_t r, int32_t c) {
        around_.clear();
        joined_.clear();
        bool fixed = false;
        each_neighbour(r, [&](const Neighbour &n, int32_t o) {
            const bool joins = class_at(o) == c && (n.length > 0 || rules_.corners_join);
            if (joins && is_fixed(o)) fixed = true;
            if (o >= 0) (joins ? joined_ : around_).push_back(o);
        });
        class_of_[r] = c;
        for (int32_t o : joined_) r = unite(r, find_owner(o));
        if (fixed)
            fixed_[r] = true;
        else if (area(r) < rules_.limit())
            push(r);
        // Specks among them are in the queue already.
        for (int32_t o : around_)
            if (!fixed_[o] && rules_.may_be_hole(area(o))) push(o);
    }

    void push(int32_t r) {
        queue_.push_back({area(r), r});
        std::push_heap(queue_.begin(), queue_.end(), later);
    }

    int32_t unite(int32_t a, int32_t b) {
        if (a == b) return a;
        if (a > b) std::swap(a, b);
        owner_[b] = a;
        next_[last_[a]] = b;
        last_[a] = last_[b];
        // Nothing asks for the area of a fixed region, and open ones must keep their own.
        if (!fixed_[a] && !fixed_[b]) area(a) += area(b);
        regions_[a].ground = regions_[a].ground || regions_[b].ground;
        fixed_[a] = fixed_[a] || fixed_[b];
        return a;
    }

    std::vector<Region> &regions_;
    const Rules &rules_;
    std::vector<int64_t> starts_;
    std::vector<Neighbour> neighbours_;
    std::vector<int32_t> owner_, class_of_, next_, last_;
    std::vector<char> waits_, fixed_;
    std::vector<Entry> queue_;
    std::vector<Claim> claims_;
    std::vector<int32_t> around_, joined_;
};

}  // namespace

struct geoseg_sieve {
    geoseg_sieve(int64_t height, int64_t width, const Rules &rules, int64_t spare)
        : height_(height), width_(width), rules_(rules), spare_(spare) {}

    int64_t add(const int32_t *rows, const int64_t *weights, int64_t count) {
        for (int64_t i = 0; i < count; ++i) {
            add_row(rows + i * width_, weights[i]);
            if (records() > 2 * kept_ + spare_) settle();
        }
        // A strip's own changes are cheapest while it is in memory.
        if (row_ == height_ || records() > 2 * kept_) settle();
        return static_cast<int64_t>(changes_.size());
    }

    void take(geoseg_sieve_change *changes) {
        std::copy(changes_.begin(), changes_.end(), changes);
        changes_.clear();
    }

    int64_t bytes() const {
        const size_t bytes = (above_.capacity() + pieces_.capacity()) * sizeof(Piece) +
                             regions_.capacity() * sizeof(Region) + runs_.capacity() * sizeof(Run) +
                             borders_.capacity() * sizeof(Border) +
                             changes_.capacity() * sizeof(geoseg_sieve_change);
        return static_cast<int64_t>(bytes);
    }

  private:
    int64_t records() const {
        return static_cast<int64_t>(regions_.size() + runs_.size() + borders_.size());
    }

    void add_row(const int32_t *row, int64_t weight) {
        std::swap(above_, pieces_);
        split(row);
        each_pair([&](const Piece &p, Piece &c, int32_t shared) {
            if (p.class_id != c.class_id || p.class_id == NODATA) return;
            if (shared > 0 || rules_.corners_join) label(c, find(regions_, p.region));
        });
        for (Piece &c : pieces_)
            if (c.class_id != NODATA) grow(c, weight);
        touch_beside();
        each_pair([&](const Piece &p, const Piece &c, int32_t shared) {
            if (p.class_id == c.class_id && (shared > 0 || rules_.corners_join)) return;
            if (shared == 0 && !rules_.corners_count()) return;
            const int64_t x = std::max(p.first, c.first);
            touch(p, c, shared, shared > 0 ? 2 * ((row_ - 1) * width_ + x) + 1 : NO_EDGE);
        });
        ++row_;
    }

    void split(const int32_t *row) {
        constexpr int64_t BLOCK = 32;
        pieces_.clear();
        for (int64_t x = 0; x < width_;) {
            const int32_t value = row[x];
            int64_t stop = x + 1;
            for (; stop + BLOCK <= width_; stop += BLOCK) {
                int32_t differs = 0;
                for (int64_t k = 0; k < BLOCK; ++k) differs |= row[stop + k] ^ value;
                if (differs) break;
            }
            while (stop < width_ && row[stop] == value) ++stop;
            pieces_.push_back(
                {static_cast<int32_t>(x), static_cast<int32_t>(stop), value, NONE});
            x = stop;
        }
    }

    // Visits pieces of both rows that share an edge of so many pixels, or a corner (0).
    template <typename Visit> void each_pair(Visit visit) {
        size_t from = 0;
        for (Piece &c : pieces_) {
            while (from < above_.size() && above_[from].stop < c.first) ++from;
            for (size_t i = from; i < above_.size() && above_[i].first <= c.stop; ++i)
                visit(above_[i], c,
                      std::min(above_[i].stop, c.stop) - std::max(above_[i].first, c.first));
        }
    }

    void label(Piece &c, int32_t above) {
        if (c.region == NONE) {
            c.region = above;
            return;
        }
        int32_t a = find(regions_, c.region), b = above;
        if (a == b) return;
        if (a > b) std::swap(a, b);
        Region &keep = regions_[a];
        const Region &gone = regions_[b];
        keep.area += gone.area;
        keep.fixed = keep.fixed || gone.fixed || keep.area >= rules_.limit();
        keep.ground = keep.ground || gone.ground;
        regions_[b].parent = a;
        c.region = a;
    }

    void grow(Piece &c, int64_t weight) {
        if (c.region == NONE) {
            c.region = static_cast<int32_t>(regions_.size());
            regions_.push_back({0, c.region, c.class_id, false, false});
        }
        c.region = find(regions_, c.region);
        Region &region = regions_[c.region];
        if (region.fixed) return;
        region.area += weight * (c.stop - c.first);
        region.fixed = region.area >= rules_.limit();
        if (row_ == 0 || row_ + 1 == height_ || c.first == 0 || c.stop == width_)
            region.ground = true;
        if (!region.fixed)
            runs_.push_back({static_cast<int32_t>(row_), c.first, c.stop, c.region});
    }

    void touch_beside() {
        for (size_t i = 1; i < pieces_.size(); ++i)
            touch(pieces_[i - 1], pieces_[i], 1, 2 * (row_ * width_ + pieces_[i].first - 1));
    }

    void touch(const Piece &p, const Piece &c, int32_t length, int64_t key) {
        if (p.class_id == NODATA || c.class_id == NODATA) {
            const int32_t r = p.class_id == NODATA ? c.region : p.region;
            const bool counts = length > 0 || !rules_.corners_join;
            if (r != NONE && counts) regions_[find(regions_, r)].ground = true;
            return;
        }
        const int32_t a = find(regions_, p.region), b = find(regions_, c.region);
        if (a != b && !(regions_[a].fixed && regions_[b].fixed))
            borders_.push_back({key, a, b, length});
    }

    // Decides what can be decided and forgets what no later row can ask for.
    void settle() {
        // A parent has the smaller number, so one ascending pass leads everywhere to the root.
        for (Region &r : regions_) r.parent = regions_[r.parent].parent;
        Decision decision(regions_, borders_, rules_);
        std::vector<char> open(regions_.size());
        std::vector<int32_t> first_open;
        if (row_ < height_)
            for (const Piece &p : pieces_)
                if (p.region != NONE) {
                    const int32_t r = regions_[p.region].parent;
                    if (!open[r] && decision.is_small(r)) first_open.push_back(r);
                    open[r] = true;
                }
        decision.wait_for(first_open);
        decision.run();
        emit(decision);
        forget(decision, open);
        kept_ = records();
    }

    void emit(Decision &decision) {
        size_t kept = 0;
        for (const Run &run : runs_) {
            const int32_t r = regions_[run.region].parent;
            if (regions_[r].fixed) continue;
            if (decision.waits(r)) {
                runs_[kept++] = run;
                continue;
            }
            const int32_t c = decision.class_of(r);
            if (c != regions_[r].class_id) changes_.push_back({run.row, run.first, run.stop, c});
        }
        runs_.resize(kept);
    }

    void forget(const Decision &decision, const std::vector<char> &open) {
        std::vector<int32_t> number(regions_.size(), NONE);
        std::vector<Region> regions;
        for (size_t r = 0; r < regions_.size(); ++r)
            if (open[r] || decision.waits(static_cast<int32_t>(r))) {
                number[r] = static_cast<int32_t>(regions.size());
                regions.push_back(regions_[r]);
                regions.back().parent = number[r];
            }
        for (Run &run : runs_) run.region = number[regions_[run.region].parent];
        for (Piece &p : pieces_)
            if (p.region != NONE) p.region = number[regions_[p.region].parent];
        size_t kept = 0;
        for (Border b : borders_) {
            // A fixed region is but its class for its neighbours. What is decided may go the same
            // way: its neighbours are decided too, or fixed.
            for (int32_t *end : {&b.a, &b.b}) {
                if (*end < 0) continue;
                const int32_t r = regions_[*end].parent;
                *end = decision.waits(r) ? number[r] : ~regions_[r].class_id;
            }
            if (b.a != b.b && (b.a >= 0 || b.b >= 0)) borders_[kept++] = b;
        }
        borders_.resize(kept);
        regions_.swap(regions);
    }

    const int64_t height_, width_;
    const Rules rules_;
    const int64_t spare_;
    int64_t row_ = 0, kept_ = 0;
    std::vector<Piece> above_, pieces_;
    std::vector<Region> regions_;
    std::vector<Run> runs_;
    std::vector<Border> borders_;
    std::vector<geoseg_sieve_change> changes_;
};

geoseg_sieve *geoseg_sieve_new(int64_t height, int64_t width, int64_t min_area, int64_t fill_holes,
                               int32_t connectivity, int64_t spare_records) {
    const Rules rules{min_area, fill_holes, connectivity == 8};
    return new (std::nothrow) geoseg_sieve(height, width, rules, spare_records);
}

int64_t geoseg_sieve_add(geoseg_sieve *sieve, const int32_t *rows, const int64_t *weights,
                         int64_t count) {
    try {
        return sieve->add(rows, weights, count);
    } catch (const std::bad_alloc &) {
        return -1;
    }
}

void geoseg_sieve_take(geoseg_sieve *sieve, geoseg_sieve_change *changes) { sieve->take(changes); }

int64_t geoseg_sieve_bytes(const geoseg_sieve *sieve) { return sieve->bytes(); }

void geoseg_sieve_free(geoseg_sieve *sieve) { delete sieve; }
