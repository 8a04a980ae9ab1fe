"""`cmake --install`: programs, manual pages, completion and the schema, and that they say the same."""
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from conftest import program

TOP = pathlib.Path(__file__).parents[2]
MAN = TOP / "docs/man"
EXPECTED = ["bin/dstack", "bin/dstack-mount", "bin/dstack-runner",
            "share/bash-completion/completions/dstack", "share/dstack/workflows.schema.json",
            "share/fish/vendor_completions.d/dstack.fish", "share/man/man1/dstack-mount.1",
            "share/man/man1/dstack-runner.1", "share/man/man1/dstack.1",
            "share/man/man5/workflows.yaml.5", "share/zsh/site-functions/_dstack"]
NOWHERE = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}  # no HOME, no configuration


def text_of(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **more)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


def options_of_help(text):
    return set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.M)) | \
        set(re.findall(r"^  (-\w), --", text, re.M))


def options_of_page(text):
    """Of the lines that head a paragraph (.TP): names are what a dash begins."""
    heads = re.findall(r"^\.TP\n(\.B.*)$", text, re.M)
    plain = re.sub(r"\\f.|\"", "", "\n".join(heads)).replace(r"\-", "-")
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", plain))


def command_names():
    return re.findall(r"^  (\w+) +[A-Z][a-z]", text_of(program("dstack"), "--help"), re.M)


def sections_of_commands():
    text = (MAN / "dstack.1").read_text()
    text = text[text.index(".SH COMMANDS"):text.index(".SH EXIT STATUS")]
    return {part.split()[0]: part for part in text.split("\n.SS ")[1:]}


def test_install_into_a_prefix(tmp_path):
    build = pathlib.Path(program("dstack")).parents[1]
    text_of("cmake", "--install", str(build), "--prefix", str(tmp_path / "p"))
    found = sorted(str(p.relative_to(tmp_path / "p")) for p in (tmp_path / "p").rglob("*")
                   if not p.is_dir())
    assert found == EXPECTED
    repo = tmp_path / "repo"
    (repo / ".dstack").mkdir(parents=True)
    environment = {**NOWHERE, "HOME": str(tmp_path), "DSTACK_HOME": str(tmp_path / "a home")}
    done = subprocess.run([tmp_path / "p/bin/dstack", "run", "bash", "-c", "echo installed"],
                          cwd=repo, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.endswith("installed\n"), done.stderr
    for shell, path in (("bash", EXPECTED[3]), ("zsh", EXPECTED[10]), ("fish", EXPECTED[5])):
        assert (tmp_path / "p" / path).read_text() == \
            text_of(program("dstack"), "completion", shell)
        if shutil.which(shell):
            text_of(shell, "-n", tmp_path / "p" / path)


@pytest.mark.parametrize("page", sorted(MAN.iterdir()), ids=lambda page: page.name)
def test_pages_are_well_formed(page):
    text_of("mandoc", "-Tlint", page)
    text_of("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page, env=NOWHERE)


def test_every_command_has_its_options_in_the_page():
    names = command_names()
    sections = sections_of_commands()
    assert sorted(sections) == sorted(names)
    for name in names:
        text = text_of(program("dstack"), name, "--help")
        assert options_of_page(sections[name]) == options_of_help(text) - {"-h", "--help"}, name


@pytest.mark.parametrize("name", ["dstack-mount", "dstack-runner"])
def test_the_other_programs_have_their_options_in_the_page(name):
    text = (MAN / f"{name}.1").read_text().split(".SH OPTIONS")[1].split(".SH EXIT")[0]
    assert options_of_page(text) == options_of_help(text_of(program(name), "--help"))


def test_the_page_of_workflows_has_every_key():
    source = (TOP / "config/workflow_keys.c").read_text()
    keys = re.findall(r'\{"(\w+)", +[A-Z]', source)
    assert len(keys) > 15
    heads = re.findall(r"^\.TP\n\.B (\w+)$", (MAN / "workflows.yaml.5").read_text(), re.M)
    assert sorted(heads) == sorted(keys)


def test_documents_name_every_command():
    names = command_names()
    for page in ("README.md", "docs/cli.md"):
        text = (TOP / page).read_text()
        for name in names:
            assert re.search(rf"^\|.*`(dstack )?{name}\b", text, re.M), \
                (page, name)


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_help_needs_nothing(tmp_path, locale):
    """Neither HOME nor configuration nor a repo; and a locale without an ellipsis shows none."""
    (tmp_path / "config.yaml").write_text("remotes: [")
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": locale, "DSTACK_HOME": str(tmp_path)}
    names = command_names()
    commands = [["dstack", "--help"], ["dstack", "-h"], ["dstack", "help"], ["dstack"],
                ["dstack-mount", "--help"], ["dstack-runner", "--help"]]
    for command, *rest in commands + [["dstack", name, "--help"] for name in names] + \
            [["dstack", name, "-h"] for name in names]:
        text = text_of(program(command), *rest, cwd=tmp_path, env=environment)
        assert "usage" in text.lower() and (locale == "C" or "?" not in text), rest
    assert os.listdir(tmp_path) == ["config.yaml"]
