# Throw-away PostgreSQL servers: sourced by `tests/run`.
#
# A server runs as an unprivileged user, since PostgreSQL refuses root: as `postgres` if this is
# root, else as the user who runs the tests. Its files and its socket are in a temporary folder.

find_postgres() {
    find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -1
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); \
print(s.getsockname()[1])'
}

postgres_bin=$(find_postgres)
postgres_url=
pooler_url=

# as_postgres COMMAND...: runs it as the user that owns the server's files.
as_postgres() {
    if [ "$(id -u)" -eq 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

# postgres_start FOLDER: makes a server and starts it on a free port; sets `postgres_url`.
postgres_start() {
    local folder=$1 port
    mkdir -p "$folder"
    [ "$(id -u)" -ne 0 ] || chown postgres "$folder"
    as_postgres "$postgres_bin/initdb" -D "$folder/data" -U postgres --auth trust \
        --encoding UTF8 --locale C.UTF-8 >"$folder.log" || return 1
    port=$(free_port)
    as_postgres tee -a "$folder/data/postgresql.conf" >/dev/null <<CONF
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = '$folder'
max_connections = 200
CONF
    as_postgres "$postgres_bin/pg_ctl" -D "$folder/data" -l "$folder/server.log" -w start \
        >>"$folder.log" || return 1
    postgres_url=postgresql://postgres@127.0.0.1:$port/postgres
}

# postgres_stop FOLDER
postgres_stop() {
    [ ! -d "$1/data" ] || as_postgres "$postgres_bin/pg_ctl" -D "$1/data" -m immediate stop \
        >/dev/null 2>&1 || true
}

# pooler_start FOLDER URL: a PgBouncer in transaction mode in front of a server; sets `pooler_url`.
pooler_start() {
    local folder=$1 address port
    address=${2#*@}
    address=${address%%/*}
    port=$(free_port)
    mkdir -p "$folder"
    [ "$(id -u)" -ne 0 ] || chown postgres "$folder"
    cat >"$folder/pgbouncer.ini" <<CONF
[databases]
* = host=${address%%:*} port=${address##*:} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
auth_type = any
pool_mode = transaction
max_client_conn = 1000
unix_socket_dir =
pidfile = $folder/pgbouncer.pid
logfile = $folder/pgbouncer.log
CONF
    as_postgres /usr/sbin/pgbouncer -d "$folder/pgbouncer.ini" || return 1
    pooler_url=postgresql://postgres@127.0.0.1:$port/postgres
}

# pooler_stop FOLDER
pooler_stop() {
    [ ! -f "$1/pgbouncer.pid" ] || kill "$(cat "$1/pgbouncer.pid")" 2>/dev/null || true
}
