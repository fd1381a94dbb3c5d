"""Everything is declared in pyproject.toml but one thing: report notebooks travel inside the package.

They are edited under nbs/templates/. A build puts copies without outputs into cryptolab/reports/templates/ of the
wheel, and names the originals as sources, so that a source distribution carries them too.
"""
import json
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
TEMPLATES = "cryptolab/reports/templates"


class BuildWithTemplates(build_py):
    "The usual build of Python files, and the report notebooks beside them."

    def _notebooks(self):
        return sorted((HERE / "nbs" / "templates").glob("*.ipynb"))

    def run(self):
        super().run()
        if self.editable_mode:  # an editable install reads the notebooks in nbs/templates themselves
            return
        folder = Path(self.build_lib) / TEMPLATES
        folder.mkdir(parents=True, exist_ok=True)
        for notebook in self._notebooks():
            book = json.loads(notebook.read_text(encoding="utf-8"))
            for cell in book["cells"]:
                if cell["cell_type"] == "code":
                    cell["outputs"], cell["execution_count"] = [], None
            (folder / notebook.name).write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def get_source_files(self):
        return super().get_source_files() + [str(p.relative_to(HERE)) for p in self._notebooks()]

    def get_outputs(self, include_bytecode=1):
        made = [] if self.editable_mode else [str(Path(self.build_lib) / TEMPLATES / p.name) for p in self._notebooks()]
        return super().get_outputs(include_bytecode) + made


setup(cmdclass={"build_py": BuildWithTemplates})
