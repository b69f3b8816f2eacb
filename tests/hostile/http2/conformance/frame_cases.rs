//! Frames that break a rule of RFC 9113, and some that break none.

use super::*;

/// RFC 9113 §4, §5 and §6: frames.
pub(super) fn frames() -> Vec<Case> {
    use Expect::{Connection, Goes, Served, Stream};
    let window = |stream, more: u32| frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
    let cut = |at: usize| block(&GET)[..at].to_vec();
    let rest = |at: usize| block(&GET)[at..].to_vec();
    let large = vec![0; MAX_FRAME + 1];
    vec![
        case("a good request", &[get(1)], Served),
        case(
            "4.1: an unknown frame",
            &[frame(0x16, 0, 0, b"x"), get(1)],
            Served,
        ),
        case(
            "4.1: unknown flags",
            &[frame(PING, 0x16, 0, &[0; 8]), get(1)],
            Served,
        ),
        case(
            "4.1: the reserved bit",
            &[frame(PING, 0, 1 << 31, &[0; 8]), get(1)],
            Served,
        ),
        case(
            "4.2: DATA beyond the size",
            &[post(1), frame(DATA, 0, 1, &large)],
            Stream(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "4.2: HEADERS beyond the size",
            &[frame(HEADERS, END_HEADERS, 1, &large)],
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "4.2: a frame of 16 MiB",
            &[vec![0xff, 0xff, 0xff, 0x16, 0, 0, 0, 0, 0]],
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "5.1: DATA on an idle stream",
            &[frame(DATA, END_STREAM, 1, b"x")],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "5.1: RST_STREAM on an idle stream",
            &[frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "5.1: WINDOW_UPDATE on an idle stream",
            &[window(1, 1)],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "5.1: CONTINUATION on an idle stream",
            &[frame(CONTINUATION, END_HEADERS, 1, &block(&GET))],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "5.1: DATA behind the end",
            &[get(1), frame(DATA, END_STREAM, 1, b"x")],
            Connection(&[STREAM_CLOSED]),
        ),
        case(
            "5.1: HEADERS behind the end",
            &[get(1), get(1)],
            Connection(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        case(
            "5.1: CONTINUATION behind the end",
            &[get(1), frame(CONTINUATION, END_HEADERS, 1, &block(&GET))],
            Connection(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        case(
            "5.1.1: an even stream",
            &[get(2)],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "5.1.1: a stream below another",
            &[get(5), get(3)],
            Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        case("5.1.1: stream 0", &[get(0)], Connection(&[PROTOCOL_ERROR])),
        case(
            "6.1: DATA on stream 0",
            &[frame(DATA, 0, 0, b"x")],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.1: padding as long as DATA",
            &[post(1), frame(DATA, PADDED, 1, &[5, 1, 2, 3, 4])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.1: padded DATA without a length",
            &[post(1), frame(DATA, PADDED, 1, b"")],
            Connection(&[PROTOCOL_ERROR, FRAME_SIZE_ERROR]),
        ),
        case(
            "6.2: padded HEADERS",
            &[frame(
                HEADERS,
                END_HEADERS | END_STREAM | PADDED,
                1,
                &[&[3][..], &block(&GET), &[0; 3]].concat(),
            )],
            Served,
        ),
        case(
            "6.2: HEADERS with a priority",
            &[frame(
                HEADERS,
                END_HEADERS | END_STREAM | PRIORITISED,
                1,
                &[&[0, 0, 0, 0, 9][..], &block(&GET)].concat(),
            )],
            Served,
        ),
        case(
            "6.2: padding as long as HEADERS",
            &[frame(
                HEADERS,
                END_HEADERS | END_STREAM | PADDED,
                1,
                &[9, 1, 2],
            )],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.2: another frame between HEADERS and CONTINUATION",
            &[
                frame(HEADERS, END_STREAM, 1, &cut(9)),
                frame(PING, 0, 0, &[0; 8]),
            ],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.2: another stream between HEADERS and CONTINUATION",
            &[
                frame(HEADERS, END_STREAM, 1, &cut(9)),
                frame(CONTINUATION, END_HEADERS, 3, &rest(9)),
            ],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.3: PRIORITY on stream 0",
            &[frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 1])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.3: PRIORITY of four bytes",
            &[post(1), frame(PRIORITY, 0, 1, &[0; 4])],
            Stream(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "6.3: PRIORITY on an idle stream",
            &[frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), get(1)],
            Served,
        ),
        case(
            "6.4: RST_STREAM on stream 0",
            &[frame(RST_STREAM, 0, 0, &[0; 4])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.4: RST_STREAM of three bytes",
            &[post(1), frame(RST_STREAM, 0, 1, &[0; 3])],
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "6.5: SETTINGS on a stream",
            &[frame(SETTINGS, 0, 1, &[])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.5: SETTINGS of five bytes",
            &[frame(SETTINGS, 0, 0, &[0; 5])],
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "6.5: SETTINGS ACK with bytes",
            &[frame(SETTINGS, ACK, 0, &[0; 6])],
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "6.5.2: ENABLE_PUSH of 2",
            &[setting(2, 2)],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.5.2: INITIAL_WINDOW_SIZE of 2^31",
            &[setting(4, 1 << 31)],
            Connection(&[FLOW_CONTROL_ERROR]),
        ),
        case(
            "6.5.2: MAX_FRAME_SIZE too small",
            &[setting(5, 16_383)],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.5.2: MAX_FRAME_SIZE too large",
            &[setting(5, 1 << 24)],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.5.2: an unknown setting",
            &[setting(0xff, 1), get(1)],
            Served,
        ),
        case(
            "6.5: a setting twice",
            &[setting(4, 1), setting(4, 65_535), get(1)],
            Served,
        ),
        case(
            "6.6: PUSH_PROMISE",
            &[frame(
                PUSH_PROMISE,
                END_HEADERS,
                1,
                &[&[0, 0, 0, 2][..], &block(&GET)].concat(),
            )],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.7: PING on a stream",
            &[frame(PING, 0, 1, &[0; 8])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.7: PING of seven bytes",
            &[frame(PING, 0, 0, &[0; 7])],
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "6.7: PING ACK that was not asked for",
            &[frame(PING, ACK, 0, &[7; 8])],
            Goes,
        ),
        case(
            "6.8: GOAWAY on a stream",
            &[frame(GOAWAY, 0, 1, &[0; 8])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.9: WINDOW_UPDATE of 0",
            &[window(0, 0)],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.9: WINDOW_UPDATE of 0 on a stream",
            &[post(1), window(1, 0)],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.9: WINDOW_UPDATE of three bytes",
            &[frame(WINDOW_UPDATE, 0, 0, &[0; 3])],
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "6.9.1: a window above 2^31",
            &[window(0, (1 << 31) - 1)],
            Connection(&[FLOW_CONTROL_ERROR]),
        ),
        case(
            "6.9.1: a stream's window above 2^31",
            &[post(1), window(1, (1 << 31) - 1)],
            Stream(&[FLOW_CONTROL_ERROR]),
        ),
        case(
            "6.9.1: DATA beyond the window",
            &[
                [post(1)].concat(),
                frame(DATA, 0, 1, &[b' '; MAX_FRAME]).repeat(8),
            ],
            Connection(&[FLOW_CONTROL_ERROR]),
        ),
        case(
            "6.9.2: a window that becomes negative",
            &[setting(4, 3), get(1), setting(4, 2), setting(4, 65_535)],
            Served,
        ),
        case(
            "6.10: CONTINUATION",
            &[
                frame(HEADERS, END_STREAM, 1, &cut(9)),
                frame(CONTINUATION, END_HEADERS, 1, &rest(9)),
            ],
            Served,
        ),
        case(
            "6.10: CONTINUATION on stream 0",
            &[
                frame(HEADERS, END_STREAM, 1, &cut(9)),
                frame(CONTINUATION, END_HEADERS, 0, &rest(9)),
            ],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.10: CONTINUATION behind END_HEADERS",
            &[post(1), frame(CONTINUATION, END_HEADERS, 1, &block(&GET))],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.10: a flood of empty CONTINUATION frames",
            &[
                frame(HEADERS, END_STREAM, 1, &cut(9)),
                frame(CONTINUATION, 0, 1, b"").repeat(1000),
            ],
            Connection(&[ENHANCE_YOUR_CALM]),
        ),
        case(
            "6.10: a flood of full CONTINUATION frames",
            &[
                frame(HEADERS, END_STREAM, 1, &cut(9)),
                frame(CONTINUATION, 0, 1, &[0x40; 9000]).repeat(50),
            ],
            Connection(&[ENHANCE_YOUR_CALM, COMPRESSION_ERROR, PROTOCOL_ERROR]),
        ),
        case(
            "a flood of empty DATA frames",
            &[post(1), frame(DATA, 0, 1, b"").repeat(1000)],
            Connection(&[ENHANCE_YOUR_CALM]),
        ),
        case(
            "a flood of resets",
            &[(0..200)
                .flat_map(|at| {
                    [
                        post(2 * at + 1),
                        frame(RST_STREAM, 0, 2 * at + 1, &[0, 0, 0, 8]),
                    ]
                })
                .collect::<Vec<_>>()
                .concat()],
            Connection(&[ENHANCE_YOUR_CALM]),
        ),
    ]
}
