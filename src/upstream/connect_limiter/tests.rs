//! Permits: their rate, their order, and what becomes of those that nobody takes.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);
const CREATION: Priority = Priority::Creation;

#[test]
fn in_no_second_there_are_more_than_allowed() {
    let mut window = Window::new(3);
    let begun = Instant::now();
    let mut granted: Vec<Instant> = vec![];
    let mut random = fastrand::Rng::with_seed(1);
    let mut now = begun;
    for _ in 0..2_000 {
        now += MILLISECOND * random.u32(0..400);
        match window.take(now) {
            Ok(()) => granted.push(now),
            Err(at) => {
                assert!(at > now && at <= now + SPAN);
                assert!(window.take(at - MILLISECOND).is_err());
            }
        }
    }
    assert!(granted.windows(4).all(|w| w[3] >= w[0] + SPAN));
    assert!(granted.len() > 1_000, "{}", granted.len());
}

#[test]
fn a_full_second_says_when_there_is_room() {
    let mut window = Window::new(2);
    let now = Instant::now();
    assert_eq!(window.take(now), Ok(()));
    assert_eq!(window.take(now + 300 * MILLISECOND), Ok(()));
    assert_eq!(window.take(now + 400 * MILLISECOND), Err(now + SPAN));
    assert_eq!(window.take(now + SPAN), Ok(()));
    let next = now + SPAN + 300 * MILLISECOND;
    assert_eq!(window.take(now + SPAN), Err(next));
}

#[tokio::test(start_paused = true)]
async fn only_so_many_are_opened_at_a_time() {
    let limiter = ConnectLimiter::new(2, 0);
    let first = limiter.try_permit(Instant::now()).unwrap();
    let _second = limiter.try_permit(Instant::now()).unwrap();
    assert!(limiter.try_permit(Instant::now()).is_none());
    let waits = tokio::time::timeout(MILLISECOND, limiter.permit(CREATION)).await;
    assert!(waits.is_err());
    assert_eq!(limiter.waiting(), 0, "it gave up");
    drop(first);
    assert!(limiter.permit(CREATION).await.is_some());
    assert!(limiter.try_permit(Instant::now()).is_some());
}

#[tokio::test(start_paused = true)]
async fn who_waits_first_is_first_and_nobody_overtakes() {
    let limiter = Arc::new(ConnectLimiter::new(1, 0));
    let (sender, mut order) = mpsc::unbounded_channel();
    let permit = limiter.try_permit(Instant::now()).unwrap();
    for number in 0..10 {
        let (limiter, sender) = (Arc::clone(&limiter), sender.clone());
        tokio::spawn(async move {
            let _turn = limiter.permit(CREATION).await.unwrap();
            assert!(limiter.try_permit(Instant::now()).is_none());
            sender.send(number).unwrap();
        });
        tokio::task::yield_now().await;
    }
    assert_eq!(limiter.waiting(), 10);
    drop(permit);
    assert!(limiter.try_permit(Instant::now()).is_none(), "overtaken");
    for number in 0..10 {
        assert_eq!(order.recv().await, Some(number));
    }
    assert!(limiter.permit(CREATION).await.is_some());
    assert_eq!(limiter.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_burst_goes_at_once_and_what_exceeds_it_in_the_next_second() {
    let limiter = ConnectLimiter::new(5, 10);
    let begun = Instant::now();
    let mut at = vec![];
    for _ in 0..25 {
        let permit = match limiter.try_permit(Instant::now()) {
            Some(permit) => permit,
            None => limiter.permit(CREATION).await.unwrap(),
        };
        at.push(begun.elapsed().as_secs());
        drop(permit);
    }
    let of = |second| at.iter().filter(|&&s| s == second).count();
    assert_eq!([of(0), of(1), of(2)], [10, 10, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_does_not_count() {
    let limiter = ConnectLimiter::new(5, 1);
    for _ in 0..100 {
        limiter.try_permit(Instant::now()).unwrap().forgive();
    }
    drop(limiter.try_permit(Instant::now()).unwrap());
    assert!(limiter.try_permit(Instant::now()).is_none());
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_takes_nobodys_place() {
    let limiter = ConnectLimiter::new(1, 1);
    drop(limiter.try_permit(Instant::now()).unwrap());
    let begun = Instant::now();
    for _ in 0..50 {
        let gave_up = tokio::time::timeout(MILLISECOND, limiter.permit(CREATION)).await;
        assert!(gave_up.is_err());
    }
    assert!(limiter.permit(CREATION).await.is_some());
    assert!(begun.elapsed() <= SPAN + 2 * MILLISECOND);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded() {
    let limiter = ConnectLimiter::new(1, 0);
    let _turn = limiter.try_permit(Instant::now()).unwrap();
    limiter.line().most_waiting = 1;
    let place = limiter.get_in_line(CREATION);
    assert!(place.is_some());
    assert!(limiter.permit(Priority::Pinned).await.is_none());
    assert_eq!(limiter.waiting(), 1);
    drop(place);
    assert!(limiter.get_in_line(Priority::Pinned).is_some());
}

/// The classes of `count` permits in a row, while `waiting` of each class wait and none more
/// comes.
async fn order_of(waiting: [usize; 3], count: usize) -> Vec<Priority> {
    let limiter = Arc::new(ConnectLimiter::new(1, 0));
    let (sender, mut order) = mpsc::unbounded_channel();
    let permit = limiter.try_permit(Instant::now()).unwrap();
    // The lowest class comes first, which must not help it.
    for priority in Priority::ALL.into_iter().rev() {
        for _ in 0..waiting[priority as usize] {
            let (limiter, sender) = (Arc::clone(&limiter), sender.clone());
            tokio::spawn(async move {
                let _turn = limiter.permit(priority).await.unwrap();
                sender.send(priority).unwrap();
            });
        }
    }
    while limiter.waiting() < waiting.iter().sum() {
        tokio::task::yield_now().await;
    }
    drop(permit);
    let mut classes = vec![];
    while classes.len() < count {
        classes.push(order.recv().await.unwrap());
    }
    classes
}

#[tokio::test(start_paused = true)]
async fn pinned_sessions_go_first_and_no_class_starves() {
    use Priority::{Creation, Moved, Pinned};

    let order = order_of([3, 3, 3], 9).await;
    let by_class = [[Pinned; 3], [Creation; 3], [Moved; 3]].concat();
    // The ninth has been passed over six times by then.
    assert_eq!(order, by_class);

    let order = order_of([100, 100, 100], 81).await;
    let of = |class| order.iter().filter(|&&c| c == class).count();
    assert_eq!([of(Pinned), of(Creation), of(Moved)], [61, 10, 10]);
    let starved = |class| order.split(|c| *c == class).any(|others| others.len() > 8);
    assert!(!starved(Creation) && !starved(Moved), "{order:?}");

    let order = order_of([0, 100, 100], 80).await;
    let of = |class| order.iter().filter(|&&c| c == class).count();
    assert_eq!([of(Creation), of(Moved)], [70, 10]);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_nobody_takes_goes_to_the_next() {
    let limiter = ConnectLimiter::new(1, 1);
    let permit = limiter.try_permit(Instant::now()).unwrap();
    let gone = limiter.get_in_line(CREATION).unwrap();
    let next = limiter.get_in_line(CREATION).unwrap();
    permit.forgive();
    assert_eq!(limiter.waiting(), 1, "the first was called");
    drop(gone);
    assert_eq!(limiter.waiting(), 0, "and the second in its place");
    drop(next);
    assert!(limiter.try_permit(Instant::now()).is_some());
}

#[tokio::test(start_paused = true)]
async fn somebody_keeps_time_however_many_give_up() {
    let limiter = Arc::new(ConnectLimiter::new(5, 10));
    let mut random = fastrand::Rng::with_seed(7);
    let (sender, mut permits) = mpsc::unbounded_channel();
    let mut patient = 0;
    for _ in 0..300 {
        let priority = Priority::ALL[random.usize(0..3)];
        let patience = MILLISECOND * random.u32(0..20_000);
        let gives_up = random.bool();
        patient += usize::from(!gives_up);
        let (limiter, sender) = (Arc::clone(&limiter), sender.clone());
        tokio::spawn(async move {
            if gives_up {
                drop(tokio::time::timeout(patience, limiter.permit(priority)).await);
            } else {
                let permit = limiter.permit(priority).await.unwrap();
                tokio::time::sleep(MILLISECOND * 30).await;
                drop(permit);
                sender.send(()).unwrap();
            }
        });
    }
    let begun = Instant::now();
    for _ in 0..patient {
        permits.recv().await.unwrap();
    }
    assert!(begun.elapsed() < SPAN * 31, "{:?}", begun.elapsed());
    assert_eq!(limiter.waiting(), 0);
    assert_eq!(limiter.line().opening, 0);
}
