"""Label values -> channels: nothing is guessed, everything has a sentence."""

import pickle

import numpy as np
import pytest

from geoseg.config.run import ClassConfig, DataConfig
from geoseg.data.labels import LabelRule, class_specs, make_rule, parse_color
from geoseg.data.sample import IGNORE
from geoseg.errors import InputError

CLASSES = (ClassConfig(10, "road", "#112233"), ClassConfig(30, "house", "#FF0000"))


def rule(classes=CLASSES, **fields):
    data = DataConfig(kind="folder", classes=classes, **fields)
    return make_rule(data, class_specs(classes))


def test_ids_become_channels_in_the_order_of_the_classes():
    values = np.array([[10, 30], [255, 10]], np.uint8)
    assert rule().encode(values, "m").tolist() == [[0, 1], [IGNORE, 0]]
    assert rule(classes=CLASSES[::-1]).encode(values, "m").tolist() == [[1, 0], [IGNORE, 1]]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "uint32", "float32"])
def test_any_whole_number_type_holds_ids(dtype):
    values = np.array([[10, 30, 255]], dtype)
    assert rule().encode(values, "m").tolist() == [[0, 1, IGNORE]]
    assert rule().encode(values, "m").dtype == np.uint8


def test_negative_and_large_ids():
    classes = (ClassConfig(-1, "low", None), ClassConfig(70000, "high", None))
    values = np.array([[-1, 70000, -7]], np.int32)
    assert rule(classes, ignore=(-7,)).encode(values, "m").tolist() == [[0, 1, IGNORE]]


def test_an_id_without_class_is_an_error_that_says_what_to_do():
    values = np.array([[10, 7, 7], [30, 9, 10]], np.uint8)
    with pytest.raises(InputError) as caught:
        rule().encode(values, "a.png")
    assert str(caught.value) == (
        "'a.png': expected class ids 10, 30; got 7 (2 px), 9 (1 px). Add a class with this id to "
        "data.classes, or put it into data.ignore."
    )
    mask, unknown = rule().try_encode(values, "a.png")
    assert unknown == {7: 2, 9: 1}
    assert mask.tolist() == [[0, IGNORE, IGNORE], [1, IGNORE, 0]]


def test_many_unknown_values_are_counted_not_listed():
    values = np.arange(40, 52, dtype=np.uint8)[None]
    with pytest.raises(InputError, match=r"got 40 \(1 px\), .* and 7 more\."):
        rule().encode(values, "m")


def test_ignore_and_ignore_index_leave_values_out():
    values = np.array([[10, 0, 9, 255]], np.uint8)
    found = rule(ignore=(9,), ignore_index=0).try_encode(values, "m")
    assert found[0].tolist() == [[0, IGNORE, IGNORE, IGNORE]]
    assert found[1] == {255: 1}


def test_reduce_zero_label_drops_zero_and_shifts_the_others():
    classes = (ClassConfig(0, "wall"), ClassConfig(1, "sky"))
    values = np.array([[0, 1, 2, 255]], np.uint8)
    found = rule(classes, reduce_zero_label=True).encode(values, "m")
    assert found.tolist() == [[IGNORE, 0, 1, IGNORE]]


def test_declared_nodata_is_ignored_unless_it_is_a_class():
    values = np.array([[10, 30, 99]], np.uint8)
    assert rule().encode(values, "m", nodata=99.0).tolist() == [[0, 1, IGNORE]]
    assert rule().encode(values[:, :2], "m", nodata=10.0).tolist() == [[0, 1]]


def test_missing_float_labels_are_ignored_and_interpolated_ones_refused():
    values = np.array([[10, np.nan, 30]], np.float32)
    assert rule().encode(values, "m").tolist() == [[0, IGNORE, 1]]
    values[0, 0] = 12.5
    with pytest.raises(InputError, match="whole numbers as class ids; got 12.5. Labels must not"):
        rule().encode(values, "m")


def test_three_equal_bands_hold_ids_and_three_different_ones_do_not():
    values = np.full((3, 2, 2), 30, np.uint8)
    assert (rule().encode(values, "m") == 1).all()
    values[1] = 10
    with pytest.raises(InputError, match="got 3 bands that differ. Set data.labels_as: colors"):
        rule().encode(values, "m")


def test_colors_become_channels_and_ignored_colors_ignore():
    colored = rule(labels_as="colors", ignore=("#9B9B9B", "#000000"))
    colors = [(0x11, 0x22, 0x33), (0xFF, 0, 0), (0x9B,) * 3, (0, 0, 0)]
    values = np.array(colors, np.uint8).T[:, None]  # (3, 1, 4)
    assert colored.encode(values, "m").tolist() == [[0, 1, IGNORE, IGNORE]]
    values[:, 0, 0] = 1
    with pytest.raises(InputError, match=r"got #010101 \(1 px\).*JPEG hold no exact colours"):
        colored.encode(values, "m")


def test_palette_files_show_their_colors():
    colored = rule(labels_as="colors")
    palette = {0: (0xFF, 0, 0, 255), 1: (0x11, 0x22, 0x33, 255), 2: (1, 2, 3, 255)}
    values = np.array([[0, 1, 1]], np.uint8)
    assert colored.encode(values, "m", palette=palette).tolist() == [[1, 0, 0]]
    assert rule(classes=(ClassConfig(0, "a"), ClassConfig(1, "b"))).encode(
        values, "m", palette=palette
    ).tolist() == [[0, 1, 1]]


def test_one_band_without_palette_shows_greys():
    classes = (ClassConfig(0, "no", "#000000"), ClassConfig(1, "yes", "#FFFFFF"))
    values = np.array([[0, 255]], np.uint8)
    assert rule(classes, labels_as="colors").encode(values, "m").tolist() == [[0, 1]]


def test_transparent_label_pixels_are_ignored():
    values = np.zeros((4, 1, 2), np.uint8)
    values[0] = 255
    values[3, 0, 1] = 255
    assert rule(labels_as="colors").encode(values, "m").tolist() == [[IGNORE, 1]]


def test_colors_need_bytes():
    with pytest.raises(InputError, match=r"1 to 4 bands of uint8; got 1 band\(s\) of uint16"):
        rule(labels_as="colors").encode(np.zeros((1, 2, 2), np.uint16), "m")


def test_a_class_that_is_also_ignored_is_refused():
    classes = (ClassConfig(0, "no"), ClassConfig(255, "yes"))
    with pytest.raises(InputError, match="class 'yes' has 255, which data.ignore.*leaves out"):
        rule(classes)
    with pytest.raises(InputError, match="class 'house' has #FF0000"):
        rule(labels_as="colors", ignore=("#FF0000",))


def test_ids_and_colors_must_differ():
    with pytest.raises(InputError, match="expected ids that differ"):
        rule((ClassConfig(1, "a"), ClassConfig(1, "b")))
    with pytest.raises(InputError, match="expected colours that differ"):
        rule((ClassConfig(1, "a", "#112233"), ClassConfig(2, "b", "#112233")), labels_as="colors")


def test_ignore_entries_must_be_of_the_labels_kind():
    with pytest.raises(InputError, match=r"expected class ids .* got '#000000'"):
        rule(ignore=("#000000",))
    with pytest.raises(InputError, match=r"expected colours .* got 9\."):
        rule(labels_as="colors", ignore=(9,))


@pytest.mark.parametrize("text", ["112233", "#1122", "#GG0000", "red", "#-12345"])
def test_a_color_is_written_as_rrggbb(text):
    with pytest.raises(InputError, match=f"expected a colour '#RRGGBB'.*got '{text}'"):
        parse_color(text)


def test_class_colors_are_chosen_where_none_is_given():
    specs = class_specs((ClassConfig(0, "a"), ClassConfig(1, "b", "#010203"), ClassConfig(2, "c")))
    assert [s.color for s in specs] == ["#000000", "#010203", "#56B4E9"]
    with pytest.raises(InputError, match="expected 1 to 254 classes; got 0"):
        class_specs(())
    with pytest.raises(InputError, match="got 255"):
        class_specs([ClassConfig(i, str(i)) for i in range(255)])


def test_a_rule_can_be_sent_to_a_worker():
    table = rule(labels_as="colors")
    assert pickle.loads(pickle.dumps(table)) == table
    assert LabelRule(((0, 0),)) != table
