"""Parts of a codec from other packages, named by "package.module:Class".

A model folder or a config may name such a part, but its code always comes from an installed package, and only from one
that the user trusts: it is imported already, listed in the environment variable COD_JAX_PLUGINS, or named in the user's
own config.
"""

import importlib
import os
import re
import sys
from typing import TypeVar

from cod_jax.errors import UserError

PLUGINS = "COD_JAX_PLUGINS"

Part = TypeVar("Part")


class PluginError(UserError):
    """A part of another package is not installed, not trusted, or not what its name promises."""


_KIND = re.compile(r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)", re.ASCII)


def is_plugin(kind: str) -> bool:
    """Return whether a kind has the form "package.module:Class", which no part of this package has."""
    return _KIND.fullmatch(kind) is not None


def resolve(kind: str, base: type[Part], *, trusted: bool) -> type[Part]:
    """Return the class that "package.module:Class" names; nothing of it is called.

    Args:
        kind: Full name of the module, a colon, and the name of a class in it.
        base: The class that it must inherit from.
        trusted: Whether the name comes from the user's own config. Otherwise the module is imported only if its package
            is listed in COD_JAX_PLUGINS, separated by commas or by the separator of paths.

    Raises:
        PluginError: The name has another form, the module is not trusted or cannot be imported, or holds no such class.
    """
    match = _KIND.fullmatch(kind)
    if match is None:
        raise PluginError(f'expected a name like "my_package.blocks:MyClass", got {kind!r}; correct the name')
    module_name, name = match["module"], match["name"]
    module = sys.modules.get(module_name)
    if module is None:
        package = module_name.partition(".")[0]
        if not trusted and package not in listed_packages():
            raise PluginError(
                f"the model needs {kind}; install {package}, import {module_name} first or list {package} in {PLUGINS} "
                "if you trust it"
            )
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # Only the module asked for or a package around it: what it imports itself is its author's to mend.
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise PluginError(
                f"{kind} is needed, and there is no module {error.name}; install {package} or correct the name"
            ) from error
    # Not getattr: a module may compute attributes, and nothing of it is called before the class is checked.
    found = vars(module).get(name)
    if found is None:
        raise PluginError(
            f"{module_name} has no class {name}; correct the name {kind}, or install the version that has it"
        )
    if not isinstance(found, type) or not issubclass(found, base):
        raise PluginError(
            f"expected {kind} to be a subclass of {base.__module__}.{base.__qualname__}, got {_describe(found)}; "
            "correct the name or the class"
        )
    return found


def listed_packages() -> frozenset[str]:
    """Return the packages in COD_JAX_PLUGINS, from which parts are imported whoever names them."""
    names = re.split(f"[,{re.escape(os.pathsep)}]", os.environ.get(PLUGINS, ""))
    return frozenset(name.strip() for name in names) - {""}


def _describe(value: object) -> str:
    return f"the class {value.__qualname__}" if isinstance(value, type) else f"a value of type {type(value).__name__}"
