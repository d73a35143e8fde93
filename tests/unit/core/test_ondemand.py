"""Code that is seldom needed comes and goes: what was imported on demand is unloaded when nobody needs it any more."""

import sys

from nodebench import Bench
from packtrust_node import ondemand


class Registry(dict):
    """Stands in for sys.modules: what is in it is what is loaded."""


def setup(names):
    ondemand.modules = Registry({name: object() for name in names})
    ondemand._enabled = True
    ondemand._before = None
    ondemand._held = 0


def teardown():
    ondemand.modules = sys.modules
    ondemand._enabled = False
    ondemand._before = None
    ondemand._held = 0


def test_what_came_after_the_first_use_goes_when_it_is_idle():
    setup(["start"])
    try:
        ondemand.use(1000)
        ondemand.modules["pt_endpoint"] = object()
        ondemand.modules["packtrust.package"] = object()
        assert sorted(ondemand.loaded()) == ["packtrust.package", "pt_endpoint"]
        ondemand.tick(1000 + ondemand.IDLE_MS - 1)
        assert len(ondemand.loaded()) == 2
        ondemand.use(2000)
        ondemand.tick(1000 + ondemand.IDLE_MS)
        assert len(ondemand.loaded()) == 2
        ondemand.tick(2000 + ondemand.IDLE_MS)
        assert list(ondemand.modules) == ["start"] and ondemand.loaded() == []
    finally:
        teardown()


def test_it_stays_while_an_object_of_it_is_held():
    setup(["start"])
    try:
        ondemand.use(0)
        ondemand.modules["pt_endpoint"] = object()
        ondemand.hold()
        ondemand.tick(100000)
        assert ondemand.loaded() == ["pt_endpoint"]
        ondemand.let_go()
        ondemand.tick(100000)
        assert ondemand.loaded() == []
    finally:
        teardown()


def test_native_code_stays():
    setup(["start"])
    try:
        ondemand.use(0)
        for name in ("pt_curve25519_thumb", "packtrust.crypto.gcm_viper", "pt_endpoint"):
            ondemand.modules[name] = object()
        ondemand.tick(100000)
        assert sorted(ondemand.modules) == ["packtrust.crypto.gcm_viper", "pt_curve25519_thumb", "start"]
    finally:
        teardown()


def test_a_module_of_a_package_is_no_attribute_of_it_any_more():
    class Package:
        child = 1

    setup(["package"])
    try:
        package = ondemand.modules["package"] = Package()
        package.child = 2
        ondemand.use(0)
        ondemand.modules["package.child"] = object()
        ondemand.tick(100000)
        assert package.child == 1
    finally:
        teardown()


def test_nothing_is_unloaded_where_nobody_began():
    setup(["start"])
    try:
        ondemand._enabled = False
        ondemand.use(0)
        ondemand.modules["pt_endpoint"] = object()
        ondemand.tick(100000)
        assert "pt_endpoint" in ondemand.modules and ondemand.loaded() == []
    finally:
        teardown()


def test_what_the_entry_of_counts_needs_is_unloaded_again():
    """Its words, imported before the mark, stayed for ever."""
    names = ["packtrust.audit", "packtrust_node.audit_log"]
    node = Bench().nodes["module0"]
    node.count("clear")
    kept = {name: sys.modules[name] for name in names if name in sys.modules}
    ondemand._unload(list(kept))
    ondemand._enabled = True
    try:
        node.guard._book(node.env.now_ms() + 60000)
        left = [name for name in names if name in sys.modules]
    finally:
        teardown()
        for name, module in kept.items():
            sys.modules[name] = module
            package, _, child = name.rpartition(".")
            setattr(sys.modules[package], child, module)
    assert left == []
    assert not node.counters.get("audit")
