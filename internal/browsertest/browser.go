package browsertest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/kvqbook/kvqbook/internal/testlane"
)

// ScreenshotsVariable names the folder for pictures; without it none are kept.
const ScreenshotsVariable = "KVQ_SCREENSHOTS"

// Patience is how long something may take on a machine that is busy with other things.
const Patience = 4 * time.Minute

// Browser is a window of a browser with a profile of its own. Whatever it cannot do fails the test.
type Browser struct {
	t   testing.TB
	ctx context.Context

	mu       sync.Mutex
	requests []string // addresses that pages asked for
}

// Open opens a window of that many pixels. It leaves the test out of every lane but --all, and
// skips it where there is no Chromium.
func Open(t testing.TB, width, height int) *Browser {
	t.Helper()
	testlane.OnlyAll(t, "opens a browser")
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Skip("this machine has no Chromium (on Debian: apt-get install chromium)")
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(width, height),
		chromedp.WSURLReadTimeout(Patience), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Headless, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
	}
	allocator, endAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, end := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits for the browser to end
		end()
		endAllocator()
	})
	b := &Browser{t: t, ctx: ctx}
	// The first call starts the browser, which lives as long as its context: so without a limit.
	err := chromedp.Listen(ctx, b.listen)
	if err == nil {
		err = chromedp.Do(ctx, chromedp.EmulateViewport(int64(width), int64(height)))
	}
	if err == nil {
		_, err = chromedp.Call(ctx, network.Enable, network.EnableParams{})
	}
	if err == nil { // as the window in front
		_, err = chromedp.Call(ctx, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	}
	if err != nil {
		t.Fatalf("opening %s: %v", path, err)
	}
	return b
}

func (b *Browser) listen(event any) {
	if e, is := event.(*network.EventRequestWillBeSent); is {
		b.mu.Lock()
		b.requests = append(b.requests, e.Request.URL)
		b.mu.Unlock()
	}
}

// Do does something with chromedp.
func (b *Browser) Do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, end := context.WithTimeout(b.ctx, Patience)
	defer end()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.fail("%s: %v", what, err)
	}
}

// fail ends the test, and keeps what is seen.
func (b *Browser) fail(format string, args ...any) {
	b.t.Helper()
	b.Picture("failed-" + b.t.Name())
	b.t.Fatalf(format, args...)
}

// Visit opens an address, http or file.
func (b *Browser) Visit(url string) {
	b.t.Helper()
	b.Do("opening "+url, chromedp.Navigate(url))
}

// Value is the value of a JavaScript expression, or of the promise that it gives.
func Value[T any](b *Browser, expression string) (value T) {
	b.t.Helper()
	ctx, end := context.WithTimeout(b.ctx, Patience)
	defer end()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise, chromedp.EvalAsValue))
	if err != nil && !errors.Is(err, chromedp.ErrJSUndefined) {
		b.fail("%s: %v", expression, err)
	}
	return value
}

// Wait waits until a JavaScript expression is true.
func (b *Browser) Wait(what, expression string) {
	b.t.Helper()
	b.WaitFor(what, Patience, expression)
}

// WaitFor is Wait with another patience.
func (b *Browser) WaitFor(what string, patience time.Duration, expression string) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if Value[bool](b, "Boolean("+expression+")") {
			return
		}
		if time.Now().After(deadline) {
			b.fail("waited %v for %s", patience, what)
		}
	}
}

// Press presses keys, as chromedp/kb names them.
func (b *Browser) Press(keys string, modifiers ...chromedp.KeyOption) {
	b.t.Helper()
	b.Do("pressing keys", chromedp.KeyEvent(keys, modifiers...))
}

// Size changes the window.
func (b *Browser) Size(width, height int) {
	b.t.Helper()
	b.Do("another size", chromedp.EmulateViewport(int64(width), int64(height)))
}

// Requests are the addresses that pages asked for so far, those of data and blobs left out.
func (b *Browser) Requests() (urls []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, url := range b.requests {
		if !strings.HasPrefix(url, "data:") && !strings.HasPrefix(url, "blob:") {
			urls = append(urls, url)
		}
	}
	return urls
}

// Picture keeps what the window shows in the folder of [ScreenshotsVariable].
func (b *Browser) Picture(name string) {
	b.t.Helper()
	folder := os.Getenv(ScreenshotsVariable)
	if folder == "" {
		return
	}
	ctx, end := context.WithTimeout(b.ctx, Patience)
	defer end()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err == nil {
		if err = os.MkdirAll(folder, 0o755); err == nil {
			err = os.WriteFile(filepath.Join(folder, strings.ReplaceAll(name, "/", "-")+".png"), png, 0o644)
		}
	}
	if err != nil {
		b.t.Errorf("a picture of %s: %v", name, err)
	}
}
