"""How Sphinx makes the site: Markdown, one theme, nothing from elsewhere."""

from clinloom import __version__

project = "Clinloom"
author = "The Clinloom authors"
version = release = __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"Clinloom {version}"
html_copy_source = False
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["tables.css"]
# Long signatures stand one parameter a line, as in the code.
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
toc_object_entries = False
