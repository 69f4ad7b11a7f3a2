//! `sslmode` against a PostgreSQL that has a certificate for `localhost` by an authority of its own.

use super::*;
use crate::harness::eventually;

/// A cluster that encrypts, and the file with the authority to trust.
async fn encrypting_cluster() -> (Cluster, String) {
    let cluster = Cluster::private();
    let script = r#"
        set -e
        key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        openssl req -x509 $key -keyout ca.key -out ca.pem -subj "/CN=authority"
        openssl req -x509 $key -CA ca.pem -CAkey ca.key -keyout server.key -out server.pem -subj "/CN=localhost" \
            -addext "subjectAltName=DNS:localhost" -addext "basicConstraints=critical,CA:FALSE"
        chmod 600 server.key
    "#;
    cluster.run_script(script);
    let folder = cluster.folder().display();
    let client = cluster.connect("postgres").await;
    for setting in [
        format!("alter system set ssl_cert_file = '{folder}/server.pem'"),
        format!("alter system set ssl_key_file = '{folder}/server.key'"),
        "alter system set ssl = on".to_owned(),
    ] {
        client.batch_execute(&setting).await.unwrap();
    }
    cluster.stop("fast");
    cluster.start();
    let authority = format!("{folder}/ca.pem");
    (cluster, authority)
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_verified_exactly_as_far_as_sslmode_says() {
    let (cluster, authority) = encrypting_cluster().await;
    let by_address = cluster.url("postgres");
    let by_name = by_address.replace("127.0.0.1", "localhost");
    for (url, accepted) in [
        (format!("{by_address}?sslmode=disable"), true),
        (format!("{by_address}?sslmode=prefer"), true),
        (format!("{by_address}?sslmode=require"), true),
        (format!("{by_address}?sslmode=verify-ca"), false),
        (format!("{by_address}?sslmode=verify-ca&sslrootcert={authority}"), true),
        (format!("{by_address}?sslmode=verify-full&sslrootcert={authority}"), false),
        (format!("{by_name}?sslmode=verify-full&sslrootcert={authority}"), true),
        (format!("{by_name}?sslmode=verify-full"), false),
    ] {
        let store = open_url(&url).await;
        let outcome = store.identity().await;
        assert_eq!(outcome.is_ok(), accepted, "{url}: {outcome:?}");
        if accepted {
            let observer = cluster.connect("postgres").await;
            let sql = "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) \
                       where application_name = 'event-tracker'";
            // A session of the round before may be ending.
            eventually(&format!("the encryption of {url}"), async || {
                let encrypted: Option<bool> = observer.query_one(sql, &[]).await.unwrap().get(0);
                encrypted == Some(!url.ends_with("disable"))
            })
            .await;
        }
        store.close().await;
    }
    let trusting = Options {
        url: format!("{by_address}?sslmode=verify-full"),
        tls_accept_invalid_certs: true,
        ..Options::default()
    };
    store::open(&trusting, std::path::Path::new("unused")).await.unwrap().identity().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_first_version_of_x509_will_do_where_none_is_verified() {
    let (cluster, _) = encrypting_cluster().await;
    cluster.run_script(
        r#"
        set -e
        openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj "/CN=citus"
        openssl x509 -req -in server.csr -signkey server.key -days 2 -out server.pem
        openssl x509 -in server.pem -noout -text | grep -q "Version: 1 "
        chmod 600 server.key
    "#,
    );
    cluster.stop("fast");
    cluster.start();
    for (mode, accepted) in [("prefer", true), ("require", true), ("verify-ca", false)] {
        let store = open_url(&format!("{}?sslmode={mode}", cluster.url("postgres"))).await;
        let outcome = store.identity().await;
        assert_eq!(outcome.is_ok(), accepted, "{mode}: {outcome:?}");
        if accepted {
            assert!(is_encrypted(&cluster).await, "{mode}");
        }
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_prefers_encryption_does_without_where_the_server_lets_nobody_in_with_it() {
    let (cluster, _) = encrypting_cluster().await;
    cluster.run_script("sed -i 's/^host /hostnossl /' data/pg_hba.conf");
    cluster.stop("fast");
    cluster.start();
    let store = open_url(&format!("{}?sslmode=prefer", cluster.url("postgres"))).await;
    store.identity().await.unwrap();
    assert!(!is_encrypted(&cluster).await);
    let required = open_url(&format!("{}?sslmode=require", cluster.url("postgres"))).await.identity().await;
    assert!(matches!(required, Err(StoreError::Refused(_))), "{required:?}");
}

/// Whether the only session of the program is.
async fn is_encrypted(cluster: &Cluster) -> bool {
    let observer = cluster.connect("postgres").await;
    let sql = "select ssl from pg_stat_ssl join pg_stat_activity using (pid) where application_name = 'event-tracker'";
    eventually("the sessions of before to end", async || observer.query(sql, &[]).await.unwrap().len() == 1).await;
    observer.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_encryption_is_refused_where_encryption_is_required() {
    let url = Cluster::shared().url("postgres");
    let refused = open_url(&format!("{url}?sslmode=require")).await.identity().await;
    assert!(matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("TLS")), "{refused:?}");
}
