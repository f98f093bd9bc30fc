"""Images find their masks by name, or a sentence says which did not."""

from pathlib import Path

import pytest

from geoseg.config.run import FilesConfig
from geoseg.data.folder import list_chips, list_files, pair_files
from geoseg.errors import InputError


def touch(root: Path, *names: str) -> str:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return str(root)


def names_of(files):
    return [
        (c.name, Path(c.image).name, Path(c.label).name) for c in list_chips(files, "data.train")
    ]


def test_a_folder_is_taken_with_its_subfolders_and_nothing_hidden(tmp_path):
    root = touch(
        tmp_path, "b.PNG", "x/a.tif", "x/a.tif.aux.xml", "notes.txt", "._b.png", ".h/c.png"
    )
    assert list(list_files([root], "images")) == ["b", "x/a"]


def test_a_pattern_names_files_below_its_fixed_part(tmp_path):
    touch(tmp_path, "p/one/a.jpg", "p/two/b.jpg", "p/two/b.png")
    found = list_files([str(tmp_path / "p/*/*.jpg")], "images")
    assert list(found) == ["one/a", "two/b"]
    assert list(list_files([str(tmp_path / "**/*.png")], "images")) == ["p/two/b"]
    assert list(list_files([str(tmp_path / "p/one/a.jpg")], "images")) == ["a"]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("a", "a"),
        ("a", "a_mask"),
        ("a", "a_m"),
        ("a", "a-labels"),
        ("a", "a.gt"),
        ("a_rgb", "a_mask"),
        ("a_sat", "a_mask"),
        ("sub/a", "sub/a_Label"),
        ("tile_m", "tile_m"),
        ("N-33-60-D-c-4-2_7", "N-33-60-D-c-4-2_7_m"),
    ],
)
def test_names_pair_but_for_an_ending(tmp_path, image, label):
    files = FilesConfig(
        touch(tmp_path / "i", f"{image}.jpg"), touch(tmp_path / "m", f"{label}.png")
    )
    assert names_of(files) == [(image, f"{Path(image).name}.jpg", f"{Path(label).name}.png")]


def test_one_folder_of_both_is_told_apart_by_patterns(tmp_path):
    root = touch(tmp_path, "0.jpg", "0.png", "1.jpg", "1.png")
    files = FilesConfig(f"{root}/*.jpg", f"{root}/*.png")
    assert names_of(files) == [("0", "0.jpg", "0.png"), ("1", "1.jpg", "1.png")]
    with pytest.raises(InputError, match=r"images and labels are the same folder .*'chips/\*.jpg'"):
        names_of(FilesConfig(root, root))


def test_lists_of_one_length_pair_item_by_item(tmp_path):
    for place in ("p", "q"):
        touch(tmp_path / place, "images/a.png", "masks/a.png")
    files = FilesConfig(
        tuple(str(tmp_path / p / "images") for p in "pq"),
        tuple(str(tmp_path / p / "masks") for p in "pq"),
    )
    chips = list_chips(files, "data.train")
    assert [c.name for c in chips] == [str(tmp_path / p / "images/a") for p in "pq"]
    assert all(Path(c.image).parts[-3] == Path(c.label).parts[-3] for c in chips)


def test_a_list_of_names_chooses(tmp_path):
    images = touch(tmp_path / "i", "a.jpg", "b.jpg", "c.jpg")
    labels = touch(tmp_path / "m", "a.png", "b.png", "z.png")
    listed = tmp_path / "names.txt"
    listed.write_text("b\n\na.jpg\n")
    assert [n for n, *_ in names_of(FilesConfig(images, labels, str(listed)))] == ["b", "a"]
    listed.write_text("b\nd\n")
    with pytest.raises(InputError, match=r"names: 'd' not found among the 3 images.*such as 'a'"):
        names_of(FilesConfig(images, labels, str(listed)))
    with pytest.raises(InputError, match="one name a line; .*nowhere.txt' cannot be read"):
        names_of(FilesConfig(images, labels, str(tmp_path / "nowhere.txt")))


def test_files_without_partner_are_named(tmp_path):
    images = touch(tmp_path / "i", "a.jpg", "b.jpg")
    labels = touch(tmp_path / "m", "a.png")
    with pytest.raises(InputError, match=r"data.train: no label found for '.*b.jpg'\. A label has"):
        names_of(FilesConfig(images, labels))
    touch(tmp_path / "m", "b.png", "c.png", "d.png", "e.png", "f.png")
    with pytest.raises(InputError, match=r"no image found for .*c.png', .*e.png' and 1 more\."):
        names_of(FilesConfig(images, labels))


def test_two_labels_of_one_image_are_refused(tmp_path):
    images = touch(tmp_path / "i", "a.jpg")
    labels = touch(tmp_path / "m", "a.png", "a_mask.png")
    with pytest.raises(InputError, match=r"a.jpg' has two labels, .*a.png' and .*a_mask.png'"):
        names_of(FilesConfig(images, labels))


def test_two_files_of_one_name_are_refused(tmp_path):
    images = touch(tmp_path / "i", "a.jpg", "a.png")
    with pytest.raises(InputError, match=r"expected names that differ; got .*a.jpg' and .*a.png'"):
        list_files([images], "data.train.images")


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="data.train.images: expected a folder, a file or a patt"):
        list_files([str(tmp_path / "nowhere")], "data.train.images")
    with pytest.raises(InputError, match=r"holds no image files \(.bmp .gif"):
        list_files([str(tmp_path / "*.png")], "data.train.images")
    with pytest.raises(InputError, match="holds no image files"):
        list_files([touch(tmp_path, "notes.txt")], "data.train.images")


def test_exact_names_go_before_endings():
    images = {n: Path(f"{n}.jpg") for n in ("a", "a_m")}
    labels = {n: Path(f"{n}.png") for n in ("a", "a_m")}
    assert [(c.name, c.label) for c in pair_files(images, labels, "data")] == [
        ("a", "a.png"),
        ("a_m", "a_m.png"),
    ]
