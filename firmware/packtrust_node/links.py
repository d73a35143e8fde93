"""How a node speaks on its buses, by node.json: `"policy"` (VCU bus) and `"mixed_bus"` (module bus), docs/policy.md."""

from packtrust.channel import MODULE_LINK, VCU_LINK, Link
from packtrust.policy import DEFAULT_PROFILE, profile


def vcu_link(config: "dict[str, object]") -> Link:
    """The link of app and pack. Raises PolicyError for a policy that is none."""
    name = config.get("policy", DEFAULT_PROFILE)
    if name == DEFAULT_PROFILE:
        return VCU_LINK
    return Link(VCU_LINK.handshake, VCU_LINK.isotp, 0, profile(str(name)))


def module_link(config: "dict[str, object]") -> Link:
    """The link of pack and modules; on a mixed bus what is sealed is out of old modules' reach."""
    if not config.get("mixed_bus"):
        return MODULE_LINK
    from packtrust.profiles import SHIFT

    isotp = MODULE_LINK.isotp
    return Link(MODULE_LINK.handshake, (isotp[0] + SHIFT, isotp[1] + SHIFT), SHIFT, profile(DEFAULT_PROFILE, True))
