//! The proxy loses what it is told to lose, and nothing else.

use std::time::Duration;

use leads_testkit::tokio_postgres::{self, Client, NoTls};
use leads_testkit::{AtCommit, DEADLINE, Proxy, System, eventually};

async fn through(proxy: &Proxy) -> Client {
    let (client, connection) = tokio_postgres::connect(proxy.url(), NoTls).await.expect("connects");
    tokio::spawn(connection);
    client
}

const INSERT: &str = "BEGIN; INSERT INTO t DEFAULT VALUES";

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_or_its_answer_is_lost() {
    let system = System::builder().without_topics().without_migrations().build().await;
    system.db().await.batch_execute("CREATE TABLE t (a int)").await.expect("a table");
    let proxy = system.proxy().await;
    for (met, (what, rows)) in
        [(AtCommit::Lost, 0), (AtCommit::AnswerLost, 1), (AtCommit::AnswerLost, 2)]
            .into_iter()
            .enumerate()
    {
        let client = through(&proxy).await;
        client.batch_execute(INSERT).await.expect("inserted");
        proxy.at_commit(what);
        assert!(client.batch_execute("COMMIT").await.is_err(), "{what:?}");
        assert_eq!(proxy.met() as usize, met + 1);
        assert_eq!(system.number("SELECT count(*) FROM t").await, rows, "{what:?}");
    }
    let client = through(&proxy).await;
    client.batch_execute(INSERT).await.expect("inserted");
    client.batch_execute("COMMIT").await.expect("nothing is armed any more");
    assert_eq!(system.number("SELECT count(*) FROM t").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_freezes_and_goes_on() {
    let system = System::builder().without_topics().without_migrations().build().await;
    system.db().await.batch_execute("CREATE TABLE t (a int)").await.expect("a table");
    let proxy = system.proxy().await;
    let client = through(&proxy).await;
    client.batch_execute(INSERT).await.expect("inserted");
    proxy.at_commit(AtCommit::Freeze);
    let mut commit = std::pin::pin!(client.batch_execute("COMMIT"));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut commit).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(proxy.met(), 1);
    assert_eq!(system.number("SELECT count(*) FROM t").await, 0);
    proxy.thaw();
    commit.await.expect("the answer comes after all");
    eventually(DEADLINE, "it is committed", async || {
        system.number("SELECT count(*) FROM t").await == 1
    })
    .await;
}
