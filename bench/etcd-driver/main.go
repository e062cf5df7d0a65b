// Puts 256-byte values into a three-node etcd with etcd's own Go client: the peer of `npm run bench -- commit failover`.
//
// -mode puts: N concurrent clients; one JSON line per client count with puts per second, median and p99 latency in ms.
// -mode steady: a put every 20 ms, whatever became of those before; one JSON line per acknowledged put with the times of its
// call and its acknowledgement, until standard input ends.
// -mode leader: prints the client URL of the leader.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const connections = 4 // one gRPC connection carries many clients; four is where etcd stops gaining

type figures struct {
	Clients   int     `json:"clients"`
	PerSecond float64 `json:"perSecond"`
	MedianMs  float64 `json:"medianMs"`
	P99Ms     float64 `json:"p99Ms"`
}

func main() {
	endpoints := flag.String("endpoints", "", "comma-separated client URLs")
	clients := flag.String("clients", "1,16,64", "comma-separated client counts")
	seconds := flag.Float64("seconds", 5, "measured seconds per count")
	mode := flag.String("mode", "puts", "puts, steady or leader")
	warmUpClients := flag.Int("warm-up-clients", 64, "clients that run before anything is measured")
	warmUpSeconds := flag.Float64("warm-up-seconds", 6, "and for how long")
	flag.Parse()
	urls := strings.Split(*endpoints, ",")
	switch *mode {
	case "steady":
		steady(connect(urls))
		return
	case "leader":
		fmt.Println(leader(connect(urls), urls))
		return
	}
	pool := make([]*clientv3.Client, connections)
	for i := range pool {
		pool[i] = connect(urls)
		defer pool[i].Close()
	}
	run(pool, *warmUpClients, time.Duration(*warmUpSeconds*float64(time.Second)))
	for _, text := range strings.Split(*clients, ",") {
		count, err := strconv.Atoi(text)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		run(pool, count, time.Second) // warm-up
		line, _ := json.Marshal(run(pool, count, time.Duration(*seconds*float64(time.Second))))
		fmt.Println(string(line))
	}
}

func connect(urls []string) *clientv3.Client {
	client, err := clientv3.New(clientv3.Config{Endpoints: urls, DialTimeout: 5 * time.Second})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return client
}

func leader(client *clientv3.Client, urls []string) string {
	for range 100 {
		for _, url := range urls {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			status, err := client.Status(ctx, url)
			cancel()
			if err == nil && status.Leader == status.Header.MemberId {
				return url
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	fmt.Fprintln(os.Stderr, "nobody leads")
	os.Exit(1)
	return ""
}

type acknowledged struct {
	CallMs float64 `json:"callMs"`
	AckMs  float64 `json:"ackMs"`
}

func nowMs() float64 { return float64(time.Now().UnixMicro()) / 1000 }

func steady(client *clientv3.Client) {
	var lock sync.Mutex
	out := json.NewEncoder(os.Stdout)
	go func() {
		value := string(bytes.Repeat([]byte("x"), 256))
		for n := 0; ; n++ {
			go func() {
				call := nowMs()
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				defer cancel()
				if _, err := client.Put(ctx, fmt.Sprintf("steady/%d", n%64), value); err != nil {
					return
				}
				lock.Lock()
				defer lock.Unlock()
				_ = out.Encode(acknowledged{call, nowMs()})
			}()
			time.Sleep(20 * time.Millisecond)
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func run(pool []*clientv3.Client, count int, span time.Duration) figures {
	value := string(bytes.Repeat([]byte("x"), 256))
	latencies := make([][]float64, count)
	start := time.Now()
	var group sync.WaitGroup
	for i := range count {
		group.Add(1)
		go func() {
			defer group.Done()
			for n := 0; time.Since(start) < span; n++ {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				began := time.Now()
				_, err := pool[i%len(pool)].Put(ctx, fmt.Sprintf("bench/%d", i), value)
				cancel()
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				latencies[i] = append(latencies[i], float64(time.Since(began).Microseconds())/1000)
			}
		}()
	}
	group.Wait()
	elapsed := time.Since(start).Seconds()
	var all []float64
	for _, list := range latencies {
		all = append(all, list...)
	}
	sort.Float64s(all)
	at := func(q float64) float64 { return all[int(q*float64(len(all)-1))] }
	return figures{count, float64(len(all)) / elapsed, at(0.5), at(0.99)}
}
