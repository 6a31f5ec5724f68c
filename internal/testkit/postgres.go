// Package testkit starts what tests need around a piece of Innate: here a
// PostgreSQL server of their own, thrown away afterwards.
//
// Nothing is skipped in silence. Where a test's dependency is missing the test
// fails and says what to install; to go without, say so: INNATE_SKIP=postgres.
package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// cluster is a running PostgreSQL server.
type cluster struct {
	dir   string         // holds the socket and the data
	alive io.WriteCloser // the server runs until this is closed
	count atomic.Int64   // of the databases made
}

// errNoPostgres is what to do when there are no PostgreSQL programs.
var errNoPostgres = errors.New("PostgreSQL is not installed: install the Debian package postgresql, or set INNATE_SKIP=postgres")

// shared is the one cluster of the process, started by the first test that
// needs it.
var shared = sync.OnceValues(startCluster)

// Postgres returns the URL of a fresh database in the process's own cluster.
// The database is dropped when the test ends, the cluster when the process
// does, in whatever way.
func Postgres(t testing.TB) string {
	t.Helper()
	c, err := shared()
	if errors.Is(err, errNoPostgres) && slices.Contains(strings.Split(os.Getenv("INNATE_SKIP"), ","), "postgres") {
		t.Skip("INNATE_SKIP says to go without postgres, and it is not installed")
	}
	if err != nil {
		t.Fatalf("starting PostgreSQL: %v", err)
	}
	name := "test" + strconv.FormatInt(c.count.Add(1), 10)
	if err := c.run(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatalf("creating a database: %v", err)
	}
	t.Cleanup(func() {
		if err := c.run(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("dropping the test's database: %v", err)
		}
	})
	return c.url(name)
}

func (c *cluster) url(database string) string {
	return "postgres://innate@/" + database + "?host=" + c.dir + "&sslmode=disable"
}

func (c *cluster) run(ctx context.Context, stmt string) error {
	conn, err := pgx.Connect(ctx, c.url("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, stmt)
	return err
}

// serve makes the data directory, runs the server, and ends it and removes
// everything when standard input ends. The test process holds the other end of
// that pipe and says nothing through it: so the server goes when the process
// does, even if that is killed, and without anything to call at its end.
//
// Arguments: the programs' directory, the cluster's directory.
const serve = `
bin=$1 dir=$2
trap 'rm -rf "$dir"' EXIT
"$bin/initdb" -D "$dir/data" -U innate -E UTF8 --locale=C.UTF-8 --auth-local=trust --auth-host=reject --no-sync >"$dir/log" 2>&1 || {
	touch "$dir/ended"
	read -r _
	exit 1
}
"$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c max_connections=400 \
	-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c deadlock_timeout=100ms >>"$dir/log" 2>&1 </dev/null &
server=$!
read -r _
kill -QUIT "$server"
wait "$server"
`

// startCluster starts a server that only this process's user can reach: through
// a socket in a directory with mode 0700, and over no network.
func startCluster() (*cluster, error) {
	bin, err := findPostgres()
	if err != nil {
		return nil, err
	}
	// Not os.TempDir: a socket's path has at most 107 bytes, and another user
	// must be able to come here.
	dir, err := os.MkdirTemp("/tmp", "innate-pg-")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/bin/sh", "-c", serve, "sh", bin, dir)
	cmd.Dir = dir
	// A group of its own: an interrupt at the terminal is for the tests.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		if cmd.SysProcAttr.Credential, err = otherUser(dir); err != nil {
			return nil, errors.Join(err, os.Remove(dir))
		}
	}
	alive, err := cmd.StdinPipe() // closed by the end of this process
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &cluster{dir: dir, alive: alive}
	return c, c.await(30 * time.Second)
}

// findPostgres finds the directory of initdb and postgres.
func findPostgres() (string, error) {
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin") // Debian's place
	if err != nil {
		return "", err
	}
	slices.Reverse(dirs) // the newest first, as far as text tells
	if p, err := exec.LookPath("initdb"); err == nil {
		dirs = append([]string{filepath.Dir(p)}, dirs...)
	}
	for _, dir := range dirs {
		_, errInit := os.Stat(filepath.Join(dir, "initdb"))
		_, errServe := os.Stat(filepath.Join(dir, "postgres"))
		if errInit == nil && errServe == nil {
			return dir, nil
		}
	}
	return "", errNoPostgres
}

// otherUser gives dir to the user postgres: PostgreSQL's programs refuse to
// run as root.
func otherUser(dir string) (*syscall.Credential, error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root and there is no user to run it as: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, os.Chown(dir, int(uid), int(gid))
}

// await waits until the server answers.
func (c *cluster) await(patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		err := c.run(ctx, "SELECT 1")
		if err == nil {
			return nil
		}
		_, ended := os.Stat(filepath.Join(c.dir, "ended"))
		if ctx.Err() != nil || ended == nil {
			log, _ := os.ReadFile(filepath.Join(c.dir, "log"))
			return fmt.Errorf("the server does not answer: %w\n%s", err, bytes.TrimSpace(log))
		}
		time.Sleep(20 * time.Millisecond)
	}
}
