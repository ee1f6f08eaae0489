package ui

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// guarded is a guard before a handler that says "inside".
func guarded() *guard {
	return newGuard(4711, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("inside")) }))
}

func TestGuard(t *testing.T) {
	g := guarded()
	const own, ours = "127.0.0.1:4711", "http://127.0.0.1:4711"
	cases := []struct {
		name   string
		method string
		host   string
		header map[string]string
		cookie string
		want   int
	}{
		{"the page", "GET", own, map[string]string{"Sec-Fetch-Site": "same-origin"}, g.secret, 200},
		{"an address that was typed", "GET", own, map[string]string{"Sec-Fetch-Site": "none"}, g.secret, 200},
		{"an old browser", "GET", own, nil, g.secret, 200},
		{"localhost", "GET", "localhost:4711", nil, g.secret, 200},
		{"IPv6", "GET", "[::1]:4711", nil, g.secret, 200},
		{"the page posts", "POST", own, map[string]string{"Origin": ours, "Sec-Fetch-Site": "same-origin"}, g.secret, 200},

		{"no cookie", "GET", own, nil, "", 401},
		{"wrong cookie", "GET", own, nil, newSecret(), 401},
		{"the key as a cookie", "GET", own, nil, g.key, 401},
		{"no cookie, posted", "POST", own, map[string]string{"Origin": ours}, "", 401},

		{"a name that was made to lead here", "GET", "evil.example:4711", nil, g.secret, 403},
		{"a name that begins like ours", "GET", "127.0.0.1.evil.example:4711", nil, g.secret, 403},
		{"an address of the network", "GET", "192.168.1.5:4711", nil, g.secret, 403},
		{"another port", "GET", "127.0.0.1:4712", nil, g.secret, 403},
		{"no port", "GET", "127.0.0.1", nil, g.secret, 403},
		{"no host", "GET", "", nil, g.secret, 403},
		{"another site reads", "GET", own, map[string]string{"Sec-Fetch-Site": "cross-site"}, g.secret, 403},
		{"another port of this machine reads", "GET", own, map[string]string{"Sec-Fetch-Site": "same-site"}, g.secret, 403},
		{"another origin reads", "GET", own, map[string]string{"Origin": "http://evil.example"}, g.secret, 403},
		{"another origin posts", "POST", own, map[string]string{"Origin": "http://evil.example"}, g.secret, 403},
		{"another port posts", "POST", own, map[string]string{"Origin": "http://127.0.0.1:8080"}, g.secret, 403},
		{"a page without an origin posts", "POST", own, map[string]string{"Origin": "null"}, g.secret, 403},
		{"a post without an origin", "POST", own, nil, g.secret, 403},
		{"a rebound name posts to itself", "POST", "evil.example:4711", map[string]string{"Origin": "http://evil.example:4711"}, g.secret, 403},
		{"the other loopback name posts", "POST", own, map[string]string{"Origin": "http://localhost:4711"}, g.secret, 403},
		{"a form of another site", "POST", own, map[string]string{"Origin": ours, "Sec-Fetch-Site": "cross-site"}, g.secret, 403},
		{"delete from nowhere", "DELETE", own, nil, g.secret, 403},
		{"put from nowhere", "PUT", own, map[string]string{"Sec-Fetch-Site": "none", "Origin": ours}, g.secret, 403},
	}
	for _, c := range cases {
		r := httptest.NewRequest(c.method, "http://"+own+g.room+"api/session", nil)
		r.Host = c.host
		for k, v := range c.header {
			r.Header.Set(k, v)
		}
		if c.cookie != "" {
			r.AddCookie(&http.Cookie{Name: g.cookie(), Value: c.cookie})
		}
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s: status %d, want %d", c.name, w.Code, c.want)
		}
		if inside := w.Body.String() == "inside"; inside != (c.want == 200) {
			t.Errorf("%s: %q", c.name, w.Body)
		}
		for k := range headers {
			if w.Header().Get(k) == "" {
				t.Errorf("%s: no %s", c.name, k)
			}
		}
	}
}

func TestKeys(t *testing.T) {
	g := guarded()
	visit := func(key, site string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "http://127.0.0.1:4711/?key="+key, nil)
		r.Header.Set("Sec-Fetch-Site", site)
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		return w
	}
	for range 2 {
		w := visit(g.key, "none")
		if w.Code != http.StatusSeeOther || w.Header().Get("Location") != g.room {
			t.Fatalf("the key: status %d to %q", w.Code, w.Header().Get("Location"))
		}
		c := w.Result().Cookies()[0]
		if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != g.room || c.Value != g.secret || c.Domain != "" {
			t.Errorf("cookie %+v", c)
		}
	}
	r := httptest.NewRequest("GET", "http://127.0.0.1:4711/api/session", nil)
	r.AddCookie(&http.Cookie{Name: g.cookie(), Value: g.secret})
	w := httptest.NewRecorder()
	if g.ServeHTTP(w, r); w.Code != http.StatusUnauthorized {
		t.Errorf("outside of the room: %d", w.Code)
	}
	once := g.launch()
	if w := visit(once, "cross-site"); w.Code != http.StatusForbidden {
		t.Errorf("another site has used a key: %d", w.Code)
	}
	if w := visit(once, "none"); w.Code != http.StatusSeeOther {
		t.Errorf("a key for one visit: %d", w.Code)
	}
	if w := visit(once, "none"); w.Code != http.StatusForbidden || len(w.Result().Cookies()) > 0 {
		t.Errorf("a key for one visit, again: %d", w.Code)
	}
	for _, key := range []string{"", "x", strings.Repeat("A", 43), g.secret} {
		if w := visit(key, "none"); w.Code != http.StatusForbidden {
			t.Errorf("key %q: %d", key, w.Code)
		}
	}
}
