"""29-bit arbitration IDs."""

from packtrust import arbitration
from portable import raises


def test_fields_stand_where_the_field_has_them():
    assert arbitration.compose(0x502, 5) == 0x14080005
    assert arbitration.compose(0x500, arbitration.NODE_UNREGISTERED) == 0x140000FF
    assert arbitration.compose(0x514, 0) == 0x14500000
    assert arbitration.base_of(0x14080005) == 0x502
    assert arbitration.node_of(0x14080005) == 5


def test_encrypted_is_bit_17():
    sealed = arbitration.compose(0x502, 5, True)
    assert sealed == 0x14080005 | 1 << 17
    assert arbitration.is_encrypted(sealed)
    assert not arbitration.is_encrypted(0x14080005)


def test_canonical_keeps_bit_17_and_drops_the_segmentation_fields():
    on_the_wire = arbitration.compose(0x502, 5, True) | arbitration.TOGGLE | 3 << 12 | 4 << 8
    assert arbitration.canonical(on_the_wire) == arbitration.compose(0x502, 5, True)
    assert arbitration.stream_of(on_the_wire) == arbitration.compose(0x502, 5, True)
    assert arbitration.stream_of(0x14080005 | 0x1FF00) == 0x14080005
    assert arbitration.clear_of(on_the_wire) == 0x14080005


def test_node_numbers_are_checked():
    assert arbitration.module_node(31) == 31
    assert arbitration.pack_node(2) == 0x42
    assert "1..31" in str(raises(ValueError, arbitration.module_node, 32))
    assert "0..15" in str(raises(ValueError, arbitration.pack_node, 16))
