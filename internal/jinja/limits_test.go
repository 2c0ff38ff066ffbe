package jinja

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/testlane"
)

// hostile are templates that would end, hang or fill a program without bounds.
var hostile = []string{
	// Depth.
	"{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
	"{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}",
	"{% set ns = namespace() %}{% macro f() %}{{ ns.f() }}{% endmacro %}{% set ns.f = f %}{{ f() }}",
	"{% macro f(g) %}{{ g(g) }}{% endmacro %}{{ f(f) }}",
	"{% macro f(x=f()) %}{% endmacro %}{{ f() }}",
	"{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{{ caller() }}{% endmacro %}{% call f() %}{% endcall %}",
	"{% macro f() %}{% set x %}{{ f() }}{% endset %}{% endmacro %}{{ f() }}",
	"{% macro f() %}{% filter upper %}{{ f() }}{% endfilter %}{% endmacro %}{{ f() }}",
	"{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
	"{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
	"{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l | tojson }}",
	"{% set a = namespace(l=[]) %}{% set b = namespace(l=[]) %}{% for i in range(50000) %}{% set a.l = [a.l] %}{% set b.l = [b.l] %}{% endfor %}{{ a.l == b.l }}",
	"{% set a = namespace(l=[]) %}{% set b = namespace(l=[]) %}{% for i in range(50000) %}{% set a.l = [a.l] %}{% set b.l = [b.l] %}{% endfor %}{{ a.l < b.l }}",
	"{% set ns = namespace(g=[1]) %}{% for i in range(100000) %}{% set ns.g = ns.g | map('string') %}{% endfor %}{{ ns.g | list }}",
	"{% set ns = namespace(g=[1]) %}{% for i in range(100000) %}{% set ns.g = ns.g | select %}{% endfor %}{{ ns.g | first }}",
	"{% set ns = namespace(g=[1]) %}{% for i in range(100000) %}{% set ns.g = ns.g | batch(1) %}{% endfor %}{% for x in ns.g %}{% endfor %}",
	"{% set ns = namespace() %}{% set ns.ns = ns %}{{ ns }}",
	"{{ " + strings.Repeat("(", 200_000) + "1" + strings.Repeat(")", 200_000) + " }}",
	"{{ " + strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000) + " }}",
	"{{ " + strings.Repeat("{1:", 100_000) + "1" + strings.Repeat("}", 100_000) + " }}",
	"{{ " + strings.Repeat("(", 200_000),
	"{{ " + strings.Repeat("not ", 100_000) + "1 }}",
	"{{ " + strings.Repeat("-", 200_000) + "1 }}",
	"{{ 1" + strings.Repeat("+1", 200_000) + " }}",
	"{{ 1" + strings.Repeat("**1", 100_000) + " }}",
	"{{ x" + strings.Repeat(".x", 200_000) + " }}",
	"{{ x" + strings.Repeat("[0]", 100_000) + " }}",
	"{{ x" + strings.Repeat("()", 200_000) + " }}",
	"{{ x" + strings.Repeat("|e", 200_000) + " }}",
	"{{ x" + strings.Repeat(" is defined", 40_000) + " }}",
	"{{ 1" + strings.Repeat(" and 1", 80_000) + " }}",
	"{{ 1" + strings.Repeat(" if 1 else 1", 40_000) + " }}",
	"{{ 1" + strings.Repeat(" if 1", 80_000) + " }}",
	"{{ f(" + strings.Repeat("f(", 200_000),
	"{{ x[" + strings.Repeat("x[", 200_000),
	strings.Repeat("{% if 1 %}", 40_000) + strings.Repeat("{% endif %}", 10_000),
	strings.Repeat("{% for x in y %}", 30_000),
	strings.Repeat("{% macro f() %}", 30_000),
	"{% set " + strings.Repeat("(", 200_000) + "a",
	"{% for " + strings.Repeat("(", 200_000) + "a",
	// Time.
	"{% for i in range(1000000000) %}{% endfor %}",
	"{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
	"{% for i in range(100000) %}{% for j in range(100000) if false %}{% endfor %}{% endfor %}",
	"{% macro f(n) %}{% for i in range(9) %}{{ f(n - 1) if n else '' }}{% endfor %}{% endmacro %}{{ f(60) }}",
	"{% for i in range(100000) %}{{ range(100000) | sum }}{% endfor %}",
	"{% for i in range(100000) %}{{ range(100000) | list | length }}{% endfor %}",
	"{% for i in range(100000) %}{{ 'x' in range(100000) | map('string') }}{% endfor %}",
	"{% for i in range(100000) %}{{ range(100000) | select('none') | list }}{% endfor %}",
	"{% for i in range(100000) %}{{ range(100000) | max }}{{ range(100000) | sort }}{% endfor %}",
	"{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{{ s[-1] }}{% endfor %}",
	"{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{{ s | length }}{% endfor %}",
	"{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{{ s.find('b') }}{{ s.count('b') }}{{ 'b' in s }}{% endfor %}",
	"{% set s = 'é' * 500000 %}{% for i in range(100000) %}{{ s[i] }}{% endfor %}",
	"{% set s = ' ' * 1000000 %}{% for i in range(100000) %}{{ s.strip() }}{% endfor %}",
	"{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{{ s == s }}{{ s.isalpha() }}{{ s is lower }}{% endfor %}",
	"{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{{ s.startswith(s) }}{% endfor %}",
	"{% set l = [0] * 100000 %}{% for i in range(100000) %}{{ l == l }}{{ 1 in l }}{{ l.count(1) }}{% endfor %}",
	"{% set l = [[[0] * 100] * 100] * 100 %}{% for i in range(100000) %}{{ l == l }}{% endfor %}",
	"{% for i in range(100000) %}{{ 2 ** 9223372036854775807 }}{{ 1 ** 9223372036854775807 }}{{ (-1) ** 9223372036854775807 }}{{ 0 ** 9223372036854775807 }}{% endfor %}",
	"{% for i in range(100000) %}{{ '%s' * 1000 % 1 }}{% endfor %}",
	"{% for i in range(100000) %}{{ range(100000) | unique | list }}{% endfor %}",
	"{% set k = namespace(d={}) %}{% for i in range(100000) %}{% set k.d = dict(k.d, **{'k' ~ i: i}) %}{% endfor %}",
	"{{ [1] | slice(9223372036854775807) | list }}",
	"{% for x in [1] | slice(9223372036854775807) %}{% endfor %}",
	"{{ [1] | batch(9223372036854775807, 1) | list }}",
	// Size.
	`{{ "x" * 1000000000 }}`,
	`{{ "x" * 9223372036854775807 }}`,
	`{{ "" * 9223372036854775807 }}{{ [] * 9223372036854775807 }}{{ [1] * 9223372036854775807 }}`,
	`{{ [1, 2] * 1000000000 }}`,
	`{{ [[1] * 100000] * 100000 }}`,
	`{{ "x" | center(2000000000) }}`,
	`{{ "x".center(9223372036854775807) }}`,
	`{{ "x".zfill(9223372036854775807) }}`,
	`{{ "x".ljust(2000000000) }}`,
	`{{ "x" | indent(2000000000, true) }}`,
	`{{ "x" | indent("y" * 1000000, true, true) }}` + strings.Repeat(`{{ "\n" * 100000 | indent("y" * 100000) }}`, 3),
	`{{ [1] | tojson(indent=2000000000) }}`,
	`{{ [[1] * 100000] | tojson(indent="x" * 100000) }}`,
	`{{ [1] * 100000 | tojson(separators=("x" * 100000, "")) }}`,
	`{{ [1] * 100000 | join("x" * 100000) }}`,
	`{{ ("x" * 100000).join(["y"] * 100000) }}`,
	`{{ "%2000000000d" % 1 }}`,
	`{{ "%.2000000000f" % 1.5 }}`,
	`{{ "%99999999999999999999d" % 1 }}`,
	`{{ "%0*d" % (2000000000, 1) }}`,
	`{{ "%2000000000s" | format("x") }}`,
	`{{ ("x" * 100000) | replace("x", "y" * 100000) }}`,
	`{{ ("x" * 100000).replace("", "y" * 100000) }}`,
	`{% set ns = namespace(s="ab") %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}`,
	`{% set ns = namespace(s="ab") %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}`,
	`{% set ns = namespace(s="ab") %}{% for i in range(100) %}{% set ns.s = ns.s | replace("a", "aa") %}{% endfor %}`,
	`{% set ns = namespace(s="'") %}{% for i in range(100) %}{% set ns.s = [ns.s] | string %}{% endfor %}`,
	`{% set ns = namespace(s="'") %}{% for i in range(100) %}{% set ns.s = ns.s | tojson %}{% endfor %}`,
	`{% set ns = namespace(s="<") %}{% for i in range(100) %}{% set ns.s = ns.s | e | string ~ ns.s %}{% endfor %}`,
	`{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = ns.l + ns.l %}{% endfor %}`,
	`{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}`,
	`{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l | tojson }}`,
	`{% set ns = namespace(l=[1], m=[1]) %}{% for i in range(100) %}{% set ns.l = [ns.l, ns.l] %}{% set ns.m = [ns.m, ns.m] %}{% endfor %}{{ ns.l == ns.m }}`,
	`{% set ns = namespace(d={}) %}{% for i in range(100) %}{% set ns.d = {'a': ns.d, 'b': ns.d} %}{% endfor %}{{ ns.d }}`,
	`{% set ns = namespace(s=0) %}{% for i in range(100000) %}{% set ns.s = ["x" * 100000, ns.s] %}{% endfor %}`,
	`{% for i in range(100000) %}{{ "x" * 1000 }}{% endfor %}`,
	`{% for i in range(100000) %}` + strings.Repeat("x", 1000) + `{% endfor %}`,
	`{% set x %}{% for i in range(100000) %}{{ "x" * 10000 }}{% endfor %}{% endset %}`,
	`{{ ("a " * 1000000).split() | map("upper") | join("x" * 1000) }}`,
	`{{ strftime_now("%A" * 10000000) }}`,
	`{{ "ß" * 5000000 | upper }}`,
	`{{ range(0, 1000000000) | list }}`,
	`{{ range(-9223372036854775807, 9223372036854775807) | length }}`,
	`{{ dict(**dict([["x" * 1000000, 1]] * 100000)) }}{{ "x" * 100000 }}`,
	`{{ raise_exception("x" * 1000000) }}`,
	`{{ "{}" * 100000 }}{{ ("{0}" * 100000).format("x" * 100000) }}`,
	`{{ ("\n" * 1000000).splitlines() | length }}{{ ("\n" * 10000000).splitlines() | length }}`,
	`{{ "` + strings.Repeat(`" "`, 100_000) + `" ~ [1] * 1000000000 }}`,
	`{% for i in range(100000) %}{% for c in "x" * 100000 %}{{ loop.length }}{% endfor %}{% endfor %}`,
	`{% set l = [1] * 1000000 %}{% for i in range(100000) %}{{ l[1:] | length }}{{ l | reverse | first }}{{ l | last }}{% endfor %}`,
	`{% set l = [1] * 1000000 %}{% for i in range(100000) %}{% for x in l if loop %}{% break %}{% endfor %}{{ l | map("string") | list | length }}{% endfor %}`,
	// Malformed and large.
	strings.Repeat("x", maxSource+1),
	"{#" + strings.Repeat("{#", 100_000),
	"{{ '" + strings.Repeat("\\", 100_001),
	"{% raw %}" + strings.Repeat("{% endraw ", 50_000),
	"{{ " + strings.Repeat("9", 100_000) + " }}",
	"{{ 0x" + strings.Repeat("f", 100_000) + " }}",
	"{% set " + strings.Repeat("a,", 100_000) + " = [1] * 10 %}",
	"{% macro f(" + strings.Repeat("a", 400_000) + ") %}{% endmacro %}{{ f(f=1) }}",
	"{{ x\xff }}",
	"\x00{{ '\x00' }}{{ nothing.x.y }}",
}

// processorTime is what this process has used so far: a busy machine does not make it longer.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// A hostile template ends with an error of one line that holds nothing of it, in little time and
// memory.
func TestHostileTemplates(t *testing.T) {
	testlane.Slow(t, "TestHostileChatTemplate in package tokenizer has nine of the templates")
	messages := []any{Dict{{"role", "user"}, {"content", "hi"}}}
	for _, source := range hostile {
		name := source[:min(len(source), 120)]
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := processorTime(t)
		text, err := render(t, source, withDefaults(messages, true, nil), Limits{})
		took := processorTime(t) - start
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%q: a text of %d bytes, want an error", name, len(text))
			continue
		}
		if message := err.Error(); strings.ContainsAny(message, "\n\r") || len(message) > 400 {
			t.Errorf("%q: error %q, want a short line", name, message)
		}
		if took > 5*time.Second {
			t.Errorf("%q: took %v", name, took)
		}
		if made := after.TotalAlloc - before.TotalAlloc; made > 1<<30 {
			t.Errorf("%q: %d MiB allocated, want less", name, made>>20)
		}
		t.Logf("%8v %5d MiB %q: %v", took.Round(time.Millisecond), (after.TotalAlloc-before.TotalAlloc)>>20, name[:min(len(name), 60)], err)
	}
}

// What an issue's inputs hold, through the same door.
func TestSharedCases(t *testing.T) {
	for _, name := range []string{"rec", "loop"} {
		data, err := os.ReadFile(filepath.Join("testdata", "hostile", name+".jinja"))
		if err != nil {
			t.Fatal(err)
		}
		if text, err := render(t, string(data), withDefaults([]any{}, true, nil), Limits{}); err == nil {
			t.Errorf("%s: %q, want an error", name, text)
		}
	}
}

func TestLimits(t *testing.T) {
	source := "{% for i in range(1000) %}{{ 'xy' * 10 }}{% endfor %}"
	for _, c := range []struct {
		limits Limits
		want   string
	}{
		{Limits{Work: 1000}, "too much work"},
		{Limits{Made: 1000}, "too many values"},
		{Limits{Output: 1000}, "too long"},
		{Limits{Depth: 2}, "too deeply"},
		{Limits{Time: time.Nanosecond}, "takes too long"},
	} {
		if text, err := render(t, source, nil, c.limits); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %d bytes, error %v, want %q", c.limits, len(text), err, c.want)
		}
	}
	if text, err := render(t, source, nil, Limits{}); err != nil || len(text) != 20_000 {
		t.Errorf("%d bytes, error %v", len(text), err)
	}
}

// The caller's context ends a rendering, and its cause is the error.
func TestContext(t *testing.T) {
	template, err := Parse("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}")
	if err != nil {
		t.Fatal(err)
	}
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(5*time.Millisecond, func() { cancel(gone) })
	limits := Limits{Work: 1 << 60, Made: 1 << 60}
	if _, err := template.Render(ctx, nil, noon, limits); !errors.Is(err, gone) {
		t.Errorf("error %v, want %v", err, gone)
	}
	if _, err := template.Render(ctx, nil, noon, limits); !errors.Is(err, gone) {
		t.Errorf("error %v of a context that is done, want %v", err, gone)
	}
}

// A long conversation may be rendered: the bounds grow with it.
func TestLongConversation(t *testing.T) {
	content := strings.Repeat("word ", 1<<20)
	var messages []any
	for range 4 {
		messages = append(messages, Dict{{"role", "user"}, {"content", content}})
	}
	source := "{% set ns = namespace(s='') %}{% for m in messages %}{% set ns.s = ns.s + m.content | trim + '\n' %}{% endfor %}{{ ns.s | replace('word', 'term') }}"
	text, err := render(t, source, withDefaults(messages, true, nil), DefaultLimits(4*len(content)))
	if err != nil || len(text) != 4*len(content) {
		t.Errorf("%d bytes, error %v, want %d", len(text), err, 4*len(content))
	}
}

// A message tells the place and never quotes the template; an objection of the template is passed
// on, on one line.
func TestMessages(t *testing.T) {
	const secret = "sEcReT"
	for _, source := range []string{
		"{{ " + secret + " ! }}", "{{ x | " + secret + " }}", "{{ x is " + secret + " }}", "{% " + secret + " %}", "{{ " + secret + ".x }}",
		"{{ '" + secret + "' + 1 }}", "{{ '" + secret, "{{ '" + secret + "'() }}", "{{ {}." + secret + ".x }}", "{% set " + secret + ".x = 1 %}",
		"{{ range('" + secret + "') }}", "{{ 'x'." + secret + "() }}", "{{ " + secret + "() }}", "{{ {'" + secret + "': 1}.x.y }}",
		"{% macro " + secret + "() %}{% endmacro %}{{ " + secret + "(1) }}", "{% for x in 1 %}" + secret, secret + "{% if %}", "{{ dict(a=1)." + secret + " | list | first | list | tojson }}{{ 1/0 }}",
		"{{ '%(" + secret + ")s' % {} }}", "{{ '{" + secret + "}'.format() }}", "{{ ['x'] | map('" + secret + "') | list }}", "{{ strftime_now('%E" + secret + "') }}",
		"{{ [1] | sort(attribute='" + secret + "') | sum }}{{ [1] | join(" + secret + "=1) }}",
	} {
		text, err := render(t, source, nil, Limits{})
		if err == nil || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %q, error %v, want one that does not quote it", source, text, err)
		}
	}
	_, err := render(t, "a\nb{{ raise_exception('no\n\"system\"\x1b[31m role ' ~ 'x' * 1000) }}", nil, Limits{})
	var e *Error
	if !errors.As(err, &e) || !e.Raised || !strings.HasPrefix(e.Message, `no "system" [31m role xxx`) || len(e.Message) > maxRaised+3 {
		t.Errorf("error %v, want the template's own, cut", err)
	}
	for source, want := range map[string]string{
		"a\n é{{ 1/0 }}":  "line 2, column 7: division by zero",
		"{{ x.y }}":       "line 1, column 5: an attribute of what is not defined",
		"{% include x %}": `line 1, column 4: the tag "include": not supported`,
	} {
		if _, err := render(t, source, nil, Limits{}); err == nil || err.Error() != want {
			t.Errorf("%q: error %v, want %q", source, err, want)
		}
	}
}

// The same template can be rendered by many at once.
func TestConcurrent(t *testing.T) {
	template, err := Parse("{% set ns = namespace(n=0) %}{% for i in range(100) %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}")
	if err != nil {
		t.Fatal(err)
	}
	for n := range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for range 20 {
				text, err := template.Render(t.Context(), Dict{{"x", n}}, noon, Limits{})
				if err != nil || text != fmt.Sprint(100*n) {
					t.Fatalf("%q, error %v", text, err)
				}
			}
		})
	}
}
