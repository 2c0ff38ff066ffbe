package browsertest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/testlane"
)

// Lab is JupyterLab as ./scripts/workbook starts it, with a reader's folder of its own.
type Lab struct {
	Root    string // of the clone
	Folder  string // the reader's copies, in the clone
	Address string // as printed, with its token

	t    testing.TB
	mu   sync.Mutex
	said strings.Builder
}

// Start starts JupyterLab and ends it with the test. Options go to scripts/workbook.
func Start(t testing.TB, options ...string) *Lab {
	t.Helper()
	testlane.OnlyAll(t, "starts JupyterLab")
	root, err := asset.Root()
	if err != nil {
		t.Fatal(err)
	}
	// Set-up would write into what the folder links to.
	if info, err := os.Lstat(filepath.Join(root, ".setup")); err == nil && info.Mode()&os.ModeSymlink != 0 {
		t.Skipf("%s/.setup is a link: ./scripts/workbook is tried in a clone with a set-up of its own", root)
	}
	lab := &Lab{Root: root, t: t}
	lab.Folder = filepath.Join(root, fmt.Sprintf("my-notebooks-test-%d", os.Getpid()))
	t.Cleanup(func() { os.RemoveAll(lab.Folder) })

	port := freePort(t)
	args := append([]string{"--no-browser", fmt.Sprint("--port=", port), "--ServerApp.port_retries=0",
		"--LabApp.expose_app_in_browser=True", "--LabApp.workspaces_dir=" + t.TempDir()}, options...)
	cmd := exec.Command(filepath.Join(root, "scripts", "workbook"), args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "KVQ_MY_NOTEBOOKS="+filepath.Base(lab.Folder))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		lab.read(out, address)
	}()
	t.Cleanup(func() { lab.end(cmd, read) })
	select {
	case lab.Address = <-address:
		lab.connect(port)
	case <-read:
		t.Fatalf("JupyterLab ended:\n%s", lab.Said())
	case <-time.After(Patience):
		t.Fatalf("JupyterLab printed no address:\n%s", lab.Said())
	}
	return lab
}

// connect waits until the server answers: it prints its address a moment before.
func (l *Lab) connect(port int) {
	l.t.Helper()
	for deadline := time.Now().Add(Patience); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("JupyterLab does not answer: %v", err)
		}
	}
}

var printedAddress = regexp.MustCompile(`http://127\.0\.0\.1:\d+/\S*token=\w+`)

// read keeps what the server says, and tells the address that it prints.
func (l *Lab) read(out io.Reader, address chan<- string) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	told := false
	for lines.Scan() {
		l.mu.Lock()
		l.said.WriteString(lines.Text() + "\n")
		l.mu.Unlock()
		if found := printedAddress.FindString(lines.Text()); found != "" && !told {
			told = true
			address <- found
		}
	}
}

// Said is what the server and the scripts before it printed.
func (l *Lab) Said() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.said.String()
}

// end lets the server end its kernels, and ends it.
func (l *Lab) end(cmd *exec.Cmd, read <-chan struct{}) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-read:
	case <-time.After(time.Minute):
		l.t.Error("JupyterLab did not end within a minute of SIGTERM")
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	_ = cmd.Wait()
	if l.t.Failed() {
		l.t.Logf("JupyterLab said:\n%s", l.Said())
	}
}

// Page is the address of a page of JupyterLab for a file of the clone, given relative to its root.
func (l *Lab) Page(file string) string {
	l.t.Helper()
	u, err := url.Parse(l.Address)
	if err != nil {
		l.t.Fatal(err)
	}
	u.Path = "/lab/tree/" + filepath.ToSlash(file)
	return u.String()
}

// path is the file that an address opens, relative to the server's folder; it fails the test for
// an address that opens none.
func (l *Lab) path(address string) string {
	l.t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		l.t.Fatal(err)
	}
	file, found := strings.CutPrefix(u.Path, "/lab/tree/")
	if !found {
		l.t.Fatalf("%s opens no file", address)
	}
	return file
}

func freePort(t testing.TB) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}
