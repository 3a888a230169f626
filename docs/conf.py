"""The site: `make docs` builds it, and any warning fails it."""

import sys
from pathlib import Path

import pyro_lvm

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

project = "pyro-lvm"
version = release = pyro_lvm.__version__
copyright = "the pyro-lvm contributors, Apache-2.0"

extensions = ["myst_parser", "mathematics", "navigation", "api_pages", "name_links", "site_check"]
exclude_patterns = ["extensions"]

myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 3  # as a code host makes them, so that a link to a heading holds in both places
myst_dmath_double_inline = True  # $$ may open in the middle of a line, as it may on a code host
highlight_language = "text"
html_math_renderer = "mathml"

add_module_names = False
python_maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "pyro-lvm"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
