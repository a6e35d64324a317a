// Hearing the samples: their sound where it is in the page, else a small synthesizer, with a playhead.
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  let playing = null;

  // Plays notes through WebAudio: two soft partials a note, scheduled a little ahead of time.
  class Synthesizer {
    constructor(notes, seconds) {
      this.notes = notes;
      this.seconds = seconds;
      this.offset = 0;
      this.started = null;
    }

    get time() {
      const since = this.started === null ? 0 : Math.max(0, this.context.currentTime - this.started);
      return Math.min(this.seconds, this.offset + since);
    }

    set time(value) {
      const going = this.started !== null;
      if (going) this.pause();
      this.offset = value;
      if (going) this.play();
    }

    play() {
      this.context = this.context || new AudioContext();
      this.context.resume();
      this.out = this.context.createGain();
      this.out.gain.value = 0.5;
      const filter = this.context.createBiquadFilter(), limiter = this.context.createDynamicsCompressor();
      filter.frequency.value = 3200;
      this.out.connect(filter).connect(limiter).connect(this.context.destination);
      this.started = this.context.currentTime + 0.08;
      this.next = this.notes.findIndex((n) => n[0] + n[1] > this.offset);
      if (this.next < 0) this.next = this.notes.length;
      this.timer = setInterval(() => this.schedule(), 100);
      this.schedule();
    }

    schedule() {
      const until = this.time + 0.6;
      for (; this.next < this.notes.length && this.notes[this.next][0] < until; this.next++) {
        const [start, length, pitch, velocity] = this.notes[this.next];
        const end = start + length;
        if (end > this.offset) this.sound(pitch, velocity, Math.max(start, this.offset), end);
      }
    }

    sound(pitch, velocity, start, end) {
      const begin = this.started + start - this.offset, stop = this.started + end - this.offset;
      const level = 0.22 * Math.pow(velocity / 127, 1.5), envelope = this.context.createGain();
      envelope.gain.setValueAtTime(0, begin);
      envelope.gain.linearRampToValueAtTime(level, begin + 0.012);
      envelope.gain.exponentialRampToValueAtTime(level * 0.45, Math.max(begin + 0.02, Math.min(stop, begin + 0.6)));
      envelope.gain.setTargetAtTime(0, stop, 0.06);
      envelope.connect(this.out);
      for (const [shape, ratio, share] of [["triangle", 1, 1], ["sine", 2, 0.35]]) {
        const oscillator = this.context.createOscillator(), gain = this.context.createGain();
        oscillator.type = shape;
        oscillator.frequency.value = 440 * Math.pow(2, (pitch - 69) / 12) * ratio;
        gain.gain.value = share;
        oscillator.connect(gain).connect(envelope);
        oscillator.start(begin);
        oscillator.stop(stop + 0.5);
      }
    }

    pause() {
      this.offset = this.time;
      this.started = null;
      clearInterval(this.timer);
      const out = this.out;
      out.gain.setTargetAtTime(0, this.context.currentTime, 0.02);
      setTimeout(() => out.disconnect(), 300);
    }

    get ended() {
      return this.time >= this.seconds;
    }
  }

  // The same few things over an <audio> element.
  class Recording {
    constructor(element) {
      this.element = element;
    }

    get time() {
      return this.element.currentTime;
    }

    set time(value) {
      this.element.currentTime = value;
    }

    get ended() {
      return this.element.ended;
    }

    play() {
      return this.element.play();
    }

    pause() {
      this.element.pause();
    }
  }

  function clock(seconds) {
    return Math.floor(seconds / 60) + ":" + String(Math.floor(seconds % 60)).padStart(2, "0");
  }

  function attach(card) {
    const piece = data.pieces[card.dataset.piece];
    if (!piece) return;
    const button = card.querySelector(".play"), range = card.querySelector("input");
    const now = card.querySelector(".now"), scroll = card.querySelector(".roll-scroll");
    const roll = card.querySelector(".notes"), head = card.querySelector(".playhead");
    const rects = [...card.querySelectorAll(".note")], audio = card.querySelector("audio");
    const label = button.getAttribute("aria-label");
    const synthesizer = new Synthesizer(piece.notes, piece.seconds + 0.4);
    let source = audio ? new Recording(audio) : synthesizer;
    let lit = [];

    function draw() {
      const time = source.time, share = Math.min(1, time / piece.seconds);
      head.setAttribute("x1", 100 * share + "%");
      head.setAttribute("x2", 100 * share + "%");
      range.value = Math.min(time, piece.seconds);
      range.setAttribute("aria-valuetext", clock(time));
      now.textContent = clock(Math.min(time, piece.seconds));
      lit.forEach((rect) => rect.classList.remove("on"));
      lit = rects.filter((_, i) => piece.notes[i][0] <= time && time < piece.notes[i][0] + piece.notes[i][1]);
      lit.forEach((rect) => rect.classList.add("on"));
      const x = share * roll.clientWidth;
      if (player.going && (x < scroll.scrollLeft || x > scroll.scrollLeft + scroll.clientWidth * 0.9)) {
        scroll.scrollLeft = x - scroll.clientWidth * 0.1;
      }
    }

    function frame() {
      if (!player.going) return;
      if (source.ended) {
        player.stop();
        source.time = 0;
      }
      draw();
      requestAnimationFrame(frame);
    }

    const player = {
      going: false,
      start() {
        if (playing && playing !== player) playing.stop();
        playing = player;
        player.going = true;
        card.classList.add("playing");
        button.setAttribute("aria-label", label.replace("Play", "Pause"));
        Promise.resolve(source.play()).catch(() => {
          if (source === synthesizer) return player.stop();
          synthesizer.time = source.time;
          source = synthesizer;
          source.play();
        });
        requestAnimationFrame(frame);
      },
      stop() {
        player.going = false;
        source.pause();
        card.classList.remove("playing");
        button.setAttribute("aria-label", label);
      },
    };

    function seek(time) {
      source.time = Math.max(0, Math.min(piece.seconds, time));
      draw();
    }

    button.addEventListener("click", () => (player.going ? player.stop() : player.start()));
    range.addEventListener("input", () => seek(Number(range.value)));
    roll.addEventListener("click", (event) => {
      const box = roll.getBoundingClientRect();
      seek((piece.seconds * (event.clientX - box.left)) / box.width);
      if (!player.going) player.start();
    });
    button.disabled = range.disabled = false;
    if (audio) audio.hidden = true;
  }

  document.querySelectorAll("[data-piece]").forEach(attach);
})();
