"""Names of bases, and the few numbers other modules keep for themselves, are those of the message table."""

from packtrust import channel, testwire
from packtrust.messages import bases, by_base, by_name


def test_every_name_has_the_base_of_its_row():
    count = 0
    for name in dir(bases):
        if name[0] != "_" and name != "const":
            assert by_name(name).base == getattr(bases, name), name
            count += 1
    assert count > 60


def test_links_and_test_service_use_rows_of_the_table():
    expected = {
        channel.MODULE_LINK.handshake: ("HANDSHAKE_TO_MODULE", "HANDSHAKE_FROM_MODULE"),
        channel.MODULE_LINK.isotp: ("ISOTP_TO_MODULE", "ISOTP_FROM_MODULE"),
        channel.VCU_LINK.handshake: ("HANDSHAKE_TO_PACK", "HANDSHAKE_FROM_PACK"),
        channel.VCU_LINK.isotp: ("ISOTP_TO_PACK", "ISOTP_FROM_PACK"),
        (testwire.TO_MODULE, testwire.FROM_MODULE): ("TEST_TO_MODULE", "TEST_FROM_MODULE"),
        (testwire.TO_PACK, testwire.FROM_PACK): ("TEST_TO_PACK", "TEST_FROM_PACK"),
    }
    for numbers, names in expected.items():
        assert (by_base(numbers[0]).name, by_base(numbers[1]).name) == names
