//! Waits of seconds, on paused time.

use tokio::time::{sleep, timeout};

use super::*;

fn waiting() -> usize {
    LISTS.with_borrow(|lists| lists.waiting)
}

async fn soon() {
    let mut wait = Slow::default();
    poll_fn(|context| wait.poll_soon(context)).await;
}

async fn until(deadline: Instant) {
    let mut wait = Slow::default();
    poll_fn(|context| wait.poll_until(deadline, context)).await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_deadline_or_two_ticks_later() {
    for pause in [0, 1, 49, 50, 51, 1000, 200_000] {
        sleep(Duration::from_millis(pause)).await;
        for span in [0, 1, 49, 50, 51, 1_000, 70_000, 102_400, 310_000] {
            let span = Duration::from_millis(span);
            let begun = Instant::now();
            until(begun + span).await;
            let took = begun.elapsed();
            assert!(took >= span, "{pause}, {span:?}: {took:?}");
            assert!(took <= span + TICK * 2, "{pause}, {span:?}: {took:?}");
        }
        let begun = Instant::now();
        soon().await;
        let took = begun.elapsed();
        assert!(took >= TICK && took <= TICK * 3, "{pause}: {took:?}");
    }
    assert_eq!(waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn many_waits_end_each_in_its_time_and_leave_nothing() {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..3000_u64 {
        tasks.spawn(async move {
            sleep(Duration::from_millis(number % 997)).await;
            let (begun, span) = (Instant::now(), Duration::from_millis(number * 37 % 120_000));
            let given_up = Duration::from_millis(number * 91 % 150_000);
            let ended = timeout(given_up, until(begun + span)).await.is_ok();
            let took = begun.elapsed();
            if ended {
                assert!(
                    took >= span && took <= span + TICK * 2,
                    "{span:?}: {took:?}"
                );
            } else {
                assert!(span + TICK * 2 >= given_up, "{span:?}: {given_up:?}");
            }
            ended
        });
    }
    let mut ended = 0;
    while let Some(one) = tasks.join_next().await {
        ended += usize::from(one.unwrap());
    }
    assert!((500..2900).contains(&ended), "{ended}");
    assert_eq!(waiting(), 0);
    LISTS.with_borrow(|lists| assert!(lists.entries.is_empty(), "its memory is free again"));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_may_move_both_ways() {
    let (mut wait, begun) = (Slow::default(), Instant::now());
    for seconds in [60, 10, 1, 30, 90, 2] {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let later = deadline + Duration::from_secs(5);
        let given_up = poll_fn(|context| Poll::Ready(wait.poll_until(later, context)));
        assert!(given_up.await.is_pending());
        poll_fn(|context| wait.poll_until(deadline, context)).await;
        assert!(Instant::now() >= deadline && Instant::now() <= deadline + TICK * 2);
    }
    assert!(begun.elapsed() >= Duration::from_secs(193));
}

#[tokio::test(start_paused = true)]
async fn no_timer_runs_beyond_the_next_wait() {
    let far = tokio::spawn(until(Instant::now() + Duration::from_secs(60)));
    soon().await;
    let tick = LISTS.with_borrow(|lists| lists.tick);
    sleep(Duration::from_secs(30)).await;
    let now = LISTS.with_borrow(|lists| lists.tick);
    assert!(now <= tick + 2, "{tick} and {now}: the driver sleeps");
    // A short wait wakes the driver, and ends in its time.
    let begun = Instant::now();
    soon().await;
    assert!(begun.elapsed() >= TICK && begun.elapsed() <= TICK * 3);
    assert!(!far.is_finished());
    far.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_wakes_those_who_listen() {
    let calls = std::cell::Cell::new(0);
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut listens, mut deaf) = (Slow::default(), Slow::default());
    let listening = poll_fn(|context| {
        calls.set(calls.get() + 1);
        listens.poll_until_called(deadline, context)
    });
    let calling = async {
        for _ in 0..3 {
            tokio::task::yield_now().await;
            wake_listeners();
        }
        calls.get()
    };
    let not_listening = poll_fn(|context| deaf.poll_until(deadline, context));
    let ((), called, ()) = tokio::join!(listening, calling, not_listening);
    assert!(called >= 3, "{called}");
    assert!(Instant::now() >= deadline);
}

#[test]
fn a_runtime_that_ends_leaves_new_lists_to_the_next() {
    let mut left = Slow::default();
    for _ in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let look = poll_fn(|context| Poll::Ready(left.poll_soon(context)));
            assert!(look.await.is_pending());
            soon().await;
        });
    }
}
