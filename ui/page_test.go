package ui

import (
	"io/fs"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestSelfContained sees that the page has no script or style within its HTML, and asks nobody else for anything.
func TestSelfContained(t *testing.T) {
	elsewhere := regexp.MustCompile(`(?:src|href|from|import|url)\s*[=(]?\s*["'](?:https?:)?//`)
	err := fs.WalkDir(pageFiles, "page", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(p, "LICENSE") || strings.HasSuffix(p, ".md") {
			return err
		}
		b, err := fs.ReadFile(pageFiles, p)
		if err != nil {
			return err
		}
		text := string(b)
		if m := elsewhere.FindString(text); m != "" {
			t.Errorf("%s asks elsewhere: %s", p, m)
		}
		for _, bad := range []string{"eval(", "new Function", "innerHTML", "document.write", "localStorage"} {
			if strings.Contains(text, bad) && !(bad == "innerHTML" && strings.Contains(p, "vendor/preact.js")) {
				t.Errorf("%s has %s", p, bad)
			}
		}
		if strings.HasSuffix(p, ".html") && regexp.MustCompile(`<script(?:[^>]*)>[^<]|<style|\son\w+=|style=`).MatchString(text) {
			t.Errorf("%s has a script or a style in it", p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// luminance is that of WCAG 2.
func luminance(colour string) float64 {
	n, _ := strconv.ParseUint(colour[1:], 16, 32)
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		v := float64(n>>(16-8*i)&255) / 255
		if v <= 0.03928 {
			v /= 12.92
		} else {
			v = math.Pow((v+0.055)/1.055, 2.4)
		}
		sum += weight * v
	}
	return sum
}

// TestContrast holds the colours of both schemes to what people need to read them (WCAG 2, level AA).
func TestContrast(t *testing.T) {
	b, err := fs.ReadFile(pageFiles, "page/style.css")
	if err != nil {
		t.Fatal(err)
	}
	schemes := regexp.MustCompile(`:root \{([^}]*)\}`).FindAllStringSubmatch(string(b), -1)
	if len(schemes) != 2 {
		t.Fatalf("%d schemes", len(schemes))
	}
	for i, s := range schemes {
		colours := map[string]string{}
		for _, m := range regexp.MustCompile(`--([\w-]+): (#[0-9a-f]{6})`).FindAllStringSubmatch(s[1], -1) {
			colours[m[1]] = m[2]
		}
		for pair, least := range map[string]float64{
			"ink ground": 4.5, "ink card": 4.5, "ink chosen": 4.5, "soft ground": 4.5, "soft card": 4.5, "soft chosen": 4.5, "first ground": 4.5, "first card": 4.5,
			"on-first first": 4.5, "ground bad": 4.5, "ground warn": 4.5, "good ground": 4.5, "edge ground": 3, "edge card": 3,
		} {
			a, on, _ := strings.Cut(pair, " ")
			x, y := luminance(colours[a]), luminance(colours[on])
			if c := (max(x, y) + 0.05) / (min(x, y) + 0.05); c < least {
				t.Errorf("scheme %d: %s has a contrast of %.2f, below %.1f", i, pair, c, least)
			}
		}
	}
}
