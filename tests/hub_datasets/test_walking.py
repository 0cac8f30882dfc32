import os

from gve.hub_datasets.walking import walk_files


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names_of(roots, base):
    return [path.relative_to(base).as_posix() for path in walk_files(roots)]


def test_files_come_in_sorted_order_without_hidden_ones(tmp_path):
    make(tmp_path, "b/2", "b/10", "b.x", "a/z/1", "c", ".hidden/x", "b/.x")
    assert names_of([tmp_path], tmp_path) == ["a/z/1", "b/10", "b/2", "b.x", "c"]
    assert list(walk_files([tmp_path])) == sorted(walk_files([tmp_path]))


def test_roots_that_are_not_folders_names_that_are_not_utf8_and_each_folder_once(tmp_path):
    name = os.fsdecode(b"a/caf\xe9.mp4")
    make(tmp_path, ".x", name)
    assert names_of([tmp_path / ".x", str(tmp_path / "a"), tmp_path / "nowhere"], tmp_path) == [".x", name, "nowhere"]
    make(tmp_path / "once", "a/1", "a/b/2")
    root = tmp_path / "once"
    (root / "c").symlink_to("a")
    assert names_of([root], root) == ["a/1", "a/b/2"]
    assert names_of([root / "a" / "b", root, root / "a"], root) == ["a/b/2", "a/1"]


def test_links_are_followed_and_circles_end(tmp_path, caplog):
    make(tmp_path, "in/1", "out/2", "out/deep/3")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "a file").symlink_to(tmp_path / "out" / "2")
    (tmp_path / "out" / "deep" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "out" / "deep" / "itself").symlink_to(".")
    (tmp_path / "out" / "deep" / "loop").symlink_to("loop")
    (tmp_path / "out" / "gone").symlink_to("nowhere")
    found = names_of([tmp_path / "in"], tmp_path)
    assert found == ["in/1", "in/a file", "in/more/2", "in/more/deep/3"]
    assert sorted(record.getMessage().rpartition("/")[2] for record in caplog.records) == [
        "gone': a broken link, or no regular file",
        "loop': a broken link, or no regular file",
    ]


def test_pipes_and_what_may_not_be_read_are_passed_over(tmp_path, caplog, monkeypatch):
    make(tmp_path, "a/1", "b/2")
    os.mkfifo(tmp_path / "a" / "pipe.mp4")
    listed = type(tmp_path).iterdir

    def refusing(path):
        if path.name == "b":  # whoever runs the tests may be allowed to read everything
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(type(tmp_path), "iterdir", refusing)
    assert names_of([tmp_path], tmp_path) == ["a/1"]
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == [
        "a broken link, or no regular file",
        "Permission denied",
    ]
