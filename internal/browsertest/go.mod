// Tests in a browser. They have a module of their own so that the library does not depend on what drives it.
module github.com/kvqbook/kvqbook/internal/browsertest

go 1.27

toolchain go1.27.1

require (
	github.com/chromedp/cdproto v0.159.0
	github.com/chromedp/chromedp v0.23.0
	github.com/kvqbook/kvqbook v0.0.0
)

require github.com/go-json-experiment/json v0.0.0-20260213210345-44df1a37e875 // indirect

replace github.com/kvqbook/kvqbook => ../..
