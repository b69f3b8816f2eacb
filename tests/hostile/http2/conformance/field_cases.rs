//! Compressed fields that break a rule of RFC 7541.

use super::*;

/// RFC 7541: compressed fields.
pub(super) fn fields() -> Vec<Case> {
    use Expect::{Connection, Served};
    let good = |bytes: &[u8]| coded(&[bytes, &block(&GET)[..]].concat());
    let bad = |bytes: &[u8]| coded(&[&block(&GET)[..], bytes].concat());
    let broken = || Connection(&[COMPRESSION_ERROR]);
    vec![
        case(
            "2.3.3: an index beyond the tables",
            &[bad(&[0xff, 0x00])],
            broken(),
        ),
        case(
            "2.3.3: the name's index beyond the tables",
            &[bad(&[0x7f, 0x10, 1, b'x'])],
            broken(),
        ),
        case("4.2: a table size in front", &[good(&[0x20])], Served),
        case(
            "4.2: a table size behind a field",
            &[bad(&[0x20])],
            broken(),
        ),
        case(
            "5.1: an integer without an end",
            &[bad(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])],
            broken(),
        ),
        case(
            "5.2: a string beyond the head",
            &[bad(&[0x00, 0x01, b'x', 0x7f, 0xff, 0x00])],
            broken(),
        ),
        case(
            "5.2: the EOS symbol",
            &[bad(&[0x00, 0x01, b'x', 0x84, 0xff, 0xff, 0xff, 0xff])],
            broken(),
        ),
        case(
            "5.2: padding of zeros",
            &[bad(&[0x00, 0x01, b'x', 0x81, 0x18])],
            broken(),
        ),
        case(
            "5.2: padding of more than a byte",
            &[bad(&[0x00, 0x01, b'x', 0x82, 0x1f, 0xff])],
            broken(),
        ),
        case("6.1: index 0", &[bad(&[0x80])], broken()),
        case(
            "6.3: a table size above the limit",
            &[good(&[0x3f, 0xff, 0xff, 0x03])],
            broken(),
        ),
        case("a field cut off", &[coded(&block(&GET)[..20])], broken()),
    ]
}
