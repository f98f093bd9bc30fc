"""What polygons teach: classes, held-out polygons, background of complete extents."""

import geopandas
import pytest
import shapely

from geoseg.errors import InputError, UsageError
from geoseg.spec import ClassSpec
from geoseg.train.lesson import CLASS_FIELD, read_lesson

KNOWN = (ClassSpec(0, "background", "#d9d9d9"), ClassSpec(1, "building", "#d7301f"))


@pytest.fixture
def draw(tmp_path):
    def write(classes, name="drawn.gpkg", field="kind", crs="EPSG:32633"):
        squares = [shapely.box(20 * i, 0, 20 * i + 10, 10) for i in range(len(classes))]
        frame = geopandas.GeoDataFrame({field: classes}, geometry=squares, crs=crs)
        path = tmp_path / name
        frame.to_file(path)
        return path

    return write


def test_known_names_and_ids_keep_the_models_classes(draw):
    path = draw(["building", "0", "1", "background", "building"])
    lesson = read_lesson(path, KNOWN, class_field="kind", hold_out=0)
    assert lesson.classes == KNOWN
    assert list(lesson.train[CLASS_FIELD]) == [1, 0, 1, 0, 1]
    assert lesson.held_out.empty


def test_new_names_make_a_model_of_the_labels_classes(draw):
    path = draw(["solar panel", "building", "lawn"])
    lesson = read_lesson(path, KNOWN, class_field="kind", hold_out=0)
    assert [(c.id, c.name) for c in lesson.classes] == [
        (0, "solar panel"),
        (1, "building"),
        (2, "lawn"),
    ]
    assert lesson.classes[1] == KNOWN[1]
    assert "new classes: solar panel, building, lawn" in lesson.notes[0]


def test_numbers_name_new_classes_by_their_ids(draw):
    lesson = read_lesson(draw([7, 12, 7]), KNOWN, class_field="kind", hold_out=0)
    assert [(c.id, c.name) for c in lesson.classes] == [(7, "7"), (12, "12")]


def test_a_share_of_each_class_is_held_out(draw):
    path = draw(["building"] * 10 + ["background"] * 2)
    lesson = read_lesson(path, KNOWN, class_field="kind", hold_out=0.3, seed=4)
    assert list(lesson.held_out[CLASS_FIELD]) == [1, 1, 1]
    assert len(lesson.train) == 9
    again = read_lesson(path, KNOWN, class_field="kind", hold_out=0.3, seed=4)
    assert again.held_out.equals(lesson.held_out)


def test_unlabelled_ground_of_a_complete_extent_is_background(draw, tmp_path):
    labels = draw(["building", "building"])
    extent = geopandas.GeoDataFrame(geometry=[shapely.box(-5, -5, 35, 15)], crs="EPSG:32633")
    extent.to_file(tmp_path / "extent.gpkg")
    lesson = read_lesson(labels, KNOWN, class_field="kind", complete=tmp_path / "extent.gpkg")
    areas = lesson.train.dissolve(CLASS_FIELD).area
    assert areas[1] == pytest.approx(200)
    assert areas[0] == pytest.approx(40 * 20 - 200)


def test_polygons_without_a_field_are_the_one_class_that_is_no_background(draw, tmp_path):
    labels = draw([1, 2, 3, 4])
    extent = geopandas.GeoDataFrame(geometry=[shapely.box(-5, -5, 95, 15)], crs="EPSG:32633")
    extent.to_file(tmp_path / "extent.gpkg")
    lesson = read_lesson(labels, KNOWN, complete=tmp_path / "extent.gpkg", hold_out=0)
    assert lesson.classes == KNOWN
    assert sorted(lesson.train[CLASS_FIELD]) == [0, 1, 1, 1, 1]


def test_one_class_alone_is_refused(draw):
    with pytest.raises(InputError, match="at least two classes; all are 'building'.*--complete"):
        read_lesson(draw(["building"] * 3), KNOWN, class_field="kind")


def test_a_missing_field_names_those_there_are(draw):
    with pytest.raises(InputError, match="expected the field 'class'; it has kind"):
        read_lesson(draw(["building"]), KNOWN, class_field="class")


def test_empty_values_are_refused_with_their_number(draw):
    with pytest.raises(InputError, match="1 of 3 polygons have no value in 'kind'"):
        read_lesson(draw(["building", None, "background"]), KNOWN, class_field="kind")


def test_several_classes_need_a_field(draw):
    known = (*KNOWN, ClassSpec(2, "water", "#0000ff"))
    with pytest.raises(InputError, match="Give --class-field, one of: kind"):
        read_lesson(draw(["building"]), known)


def test_an_unknown_background_is_asked_for(draw, tmp_path):
    known = (ClassSpec(3, "land", "#00ff00"), ClassSpec(4, "sea", "#0000ff"))
    extent = geopandas.GeoDataFrame(geometry=[shapely.box(-5, -5, 35, 15)], crs="EPSG:32633")
    extent.to_file(tmp_path / "extent.gpkg")
    with pytest.raises(UsageError, match="Give --background, one of: land, sea"):
        read_lesson(draw(["sea"]), known, class_field="kind", complete=tmp_path / "extent.gpkg")


def test_lines_and_unreadable_files_are_refused(tmp_path):
    frame = geopandas.GeoDataFrame(
        geometry=[shapely.LineString([(0, 0), (1, 1)])], crs="EPSG:32633"
    )
    frame.to_file(tmp_path / "lines.gpkg")
    with pytest.raises(InputError, match="expected polygons; got none"):
        read_lesson(tmp_path / "lines.gpkg", KNOWN)
    with pytest.raises(InputError, match="cannot be read"):
        read_lesson(tmp_path / "missing.gpkg", KNOWN)
    (tmp_path / "text.gpkg").write_text("no")
    with pytest.raises(InputError, match=r"cannot be read: .*[^.]\. Give a vector"):
        read_lesson(tmp_path / "text.gpkg", KNOWN)
