# The stage `postgres` of `tests/run`, which sources this: the store in PostgreSQL, directly and
# behind a pooler, and several relays on servers that are killed.
#
# A server is started for it, unless TEST_DATABASE_URL names one: a superuser's URL of a server for
# tests, on which databases and roles are made and dropped.

. tests/postgres/server.sh

install_postgres() {
    debian_packages+=(pgbouncer)
    [ -n "$postgres_bin" ] || debian_packages+=(postgresql)
    install_packages
    postgres_bin=$(find_postgres)
    [ -n "$postgres_bin" ]
}

end_servers() {
    pooler_stop "$servers/one"
    postgres_stop "$servers/one"
    rm -rf "$logs" "$servers"
}

postgres_suite() {
    cargo test --no-fail-fast --features postgres-tests --lib store::postgres
}

postgres() {
    local folder url
    servers=$(mktemp -d)
    trap end_servers EXIT
    chmod 755 "$servers"
    folder=$servers/one
    check 'packages' install_postgres
    if [ -z "${TEST_DATABASE_URL:-}" ]; then
        check 'server' postgres_start "$folder"
        export TEST_DATABASE_URL=$postgres_url
    fi
    url=$TEST_DATABASE_URL
    count_tests 'postgres' postgres_suite
    check 'pooler' pooler_start "$folder" "$url"
    export TEST_DATABASE_URL=$pooler_url TEST_DATABASE_DIRECT_URL=$url
    count_tests 'pooled' postgres_suite
    count_tests 'replicas' cargo test --no-fail-fast --features postgres-tests --test it postgres::
}
