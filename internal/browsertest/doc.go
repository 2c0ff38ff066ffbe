// Package browsertest opens the notebooks, and other pages, in headless Chromium, and does what a
// reader does. Its tests are of the lane --all, and are skipped where there is no Chromium.
//
// It is a module of its own, so that what drives the browser is no dependency of the library:
//
//	cd internal/browsertest && KVQ_TEST_ALL=1 go test . -run TestRunAll -v
//
// Pictures of what was seen are kept in the folder that KVQ_SCREENSHOTS names.
package browsertest
