"""How guides and reference are built: `sphinx-build -W docs build/docs`."""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

from lawn_optax import __version__

project = "lawn_optax"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
# The results link to their records, which are in the repository and not on the site.
suppress_warnings = ["myst.xref_missing", "myst.header"]
html_theme = "furo"
html_title = f"lawn_optax {release}"
html_copy_source = False
html_show_copyright = False
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["equations.css"]

# A name in backticks is a link where it is public, and plain code elsewhere.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [("py:obj", ".*")]

# The aliases of Optax and JAX unfold to several lines each; "Args" says types in words.
autodoc_typehints = "none"
autodoc_preserve_defaults = True
napoleon_attr_annotations = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def setup(app):
    """Register what this file does; Sphinx calls it."""
    app.connect("missing-reference", _from_the_package)
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math, None))


def _from_the_package(app, env, node, contnode):
    """Find `lawn` from anywhere in the package, not from its own module alone."""
    target, python = f"lawn_optax.{node['reftarget']}", env.get_domain("py")
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, contnode)


def _visit_math(self, node):
    """Write an equation as MathML: browsers show it offline, and a mistake fails the build."""
    self.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode
