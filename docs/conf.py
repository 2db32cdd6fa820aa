"""How the documentation's site is built: `sphinx-build -W -c docs . OUTPUT`.

The source is the whole repository, so that a link between two pages is the same one here and where the files are read.
"""

from importlib.metadata import version as version_of

project = "dask-cloud"
author = "the dask-cloud developers"
version = release = version_of("dask-cloud")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]

root_doc = "docs/index"
include_patterns = ["docs/**.md", "*.md", "*/README.md"]
exclude_patterns = [".*"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's Parameters say it
napoleon_google_docstring = False
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"dask-cloud {version}"
html_show_copyright = False
